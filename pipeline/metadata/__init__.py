"""The metadata of an image: the record (its only canonical form), its views, reading it back, and the file's path."""
