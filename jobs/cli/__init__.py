"""The `darkroom` command, one module a topic."""
