"""What is applied to a model for some pictures and removed for others: LoRAs, textual inversion, ControlNets,
IP-Adapters, pictures to start from. `specs` imports nothing of the rest, so that a configuration is read quickly.
"""
