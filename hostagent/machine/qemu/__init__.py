"""The QEMU driver: a pure command line, QMP, and the process."""
