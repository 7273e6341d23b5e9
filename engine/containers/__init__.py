"""Containers: the centre of the engine."""
