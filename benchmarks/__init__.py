"""What a container costs, and what a virtual machine: measured on the reader's own machine."""
