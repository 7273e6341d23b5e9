"""The one place that knows which version of pyengine this is."""

VERSION = "0.1.0"  # a test compares it with pyproject.toml; importlib.metadata would cost 20 ms at each start
