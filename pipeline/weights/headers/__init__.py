"""The headers of weights files."""
