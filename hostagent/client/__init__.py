"""The small, synchronous Docker Engine API client that the command line and the benchmarks use."""
