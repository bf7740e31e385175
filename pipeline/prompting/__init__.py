"""What a prompt asks for: vocabularies, analysis, negatives, characters and settings. Imports no torch."""
