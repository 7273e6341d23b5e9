"""The `pyengine` command: docker's verbs and flags over one local socket."""
