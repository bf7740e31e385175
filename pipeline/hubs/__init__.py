"""Hugging Face and CivitAI: asked, downloaded from, verified. The only room that opens connections."""
