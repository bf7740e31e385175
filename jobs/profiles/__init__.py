"""Saved settings: profiles kept, listed, chosen and deleted, from a command line, a run or an image."""
