"""The process that is the engine: configuration, wiring, recovery."""
