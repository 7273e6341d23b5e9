"""Where containers and commands are run to be measured, one module a kind of place."""
