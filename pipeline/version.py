"""The version of Darkroom, as pyproject.toml has it (a test keeps them equal)."""

VERSION = "0.1.0"
