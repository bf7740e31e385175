"""The main program of a run: the loop, what is seen of it, the report."""
