"""Prompt sets, files, lines, templates."""
