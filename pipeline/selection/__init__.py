"""Which model, VAE, LoRAs and settings suit a prompt, and why. Imports no torch."""
