"""The container engine: everything between the Docker Engine API and the Linux kernel."""
