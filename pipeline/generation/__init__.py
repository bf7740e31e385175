"""A bundle of pictures from texts to pixels."""
