"""How a model is fitted into memory: what there is, what it saves, what is chosen, and what is done when it fails."""
