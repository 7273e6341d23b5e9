"""The OCI runtime: reads config.json, makes a container, and is gone."""
