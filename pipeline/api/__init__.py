"""The Python API: a model that stays loaded, and the pictures that it makes."""
