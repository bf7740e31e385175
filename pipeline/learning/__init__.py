"""From ratings to preferences. Imports no torch."""
