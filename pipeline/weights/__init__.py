"""What a file of weights or a model folder is, from names and headers alone."""
