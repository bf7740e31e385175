"""The main program of a run: the loop, progress, the report."""
