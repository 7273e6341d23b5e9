"""Control groups of a container: what to write is decided in `plan`, `v1` and `v2` write it."""
