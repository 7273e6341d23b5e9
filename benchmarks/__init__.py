"""Measure what virtual machines and containers cost, side by side."""
