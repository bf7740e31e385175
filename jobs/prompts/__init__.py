"""Prompt sets, prompt files, lines, templates."""
