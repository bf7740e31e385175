"""The third stage of understanding: an LLM on this machine fills gaps and ranks what was offered, through Ollama."""
