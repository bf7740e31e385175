"""Identifies weights files and model folders from names and headers."""
