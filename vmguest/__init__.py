"""The part of pyengine that runs inside its virtual machine: PID 1 and the guest agent."""
