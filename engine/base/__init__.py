"""Ground floor of the project: knows nothing of containers, imports on any operating system."""
