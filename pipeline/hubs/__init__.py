"""Hugging Face and CivitAI: requests, downloads and their verification. Only this package opens connections."""
