"""Chooses the memory techniques for a model before it is loaded. Does not import torch."""
