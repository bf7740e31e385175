"""What is tried when memory runs out or a model fails, and what is remembered of it."""
