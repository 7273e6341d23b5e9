"""One process a container: stdio, log, exit code; outlives the daemon."""
