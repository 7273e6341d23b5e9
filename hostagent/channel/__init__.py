"""The ways into a running machine: SSH for byte streams, virtio-serial for control."""
