"""What is done with images that exist: found, shown, checked, listed anew, made again."""
