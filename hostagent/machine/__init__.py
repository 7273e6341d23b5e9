"""Machines: their settings, the image they boot, their accelerator, and the driver that runs them."""
