"""YAML to one frozen, strict configuration; what configuration files may not do; explanations of Hydra's errors."""
