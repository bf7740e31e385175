"""YAML to one frozen, strict configuration; what configuration files may not do; Hydra's words."""
