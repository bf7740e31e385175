"""What is put on or beside a model for some pictures and taken off for others: LoRAs, textual inversion, ControlNets,
IP-Adapters, pictures to start from. `specs` imports nothing of the rest, so that a configuration is read quickly.
"""
