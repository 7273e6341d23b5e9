"""What the guest does for its host while it runs: clock and ports."""
