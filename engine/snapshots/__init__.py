"""Root file systems of containers, made of layers."""
