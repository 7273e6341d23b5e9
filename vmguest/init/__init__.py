"""PID 1 of the machine: from the first mount to a clean power off."""
