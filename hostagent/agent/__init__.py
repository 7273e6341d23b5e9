"""The long-lived host process of one machine: it owns the sockets, boots the VM and carries bytes into it."""
