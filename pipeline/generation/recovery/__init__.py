"""Fallbacks when memory runs out or a model fails, and the history of those that worked."""
