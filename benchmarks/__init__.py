"""What the design promises (shared/DESIGN.md, section 5), measured: `python -m benchmarks [NAME ...]`."""
