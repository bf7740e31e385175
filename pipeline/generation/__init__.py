"""Makes a bundle of pictures, from texts to pixels."""
