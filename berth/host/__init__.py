"""What the command line asks this machine: ports, memory, programs, the model hub."""
