"""Every system call that pyengine makes, without policy."""
