"""Batches: from configuration files to images, their manifest, and what is done with both."""

DEFAULT_OUTPUT_DIR = "outputs"
"""Where images go unless the user says otherwise, below the current folder."""
