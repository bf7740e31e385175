"""Imported once by the server from which `forked.py` forks: what a run and the commands need besides a worker's."""

from importlib import import_module

for name in (
    *("duckdb", "pyarrow.parquet", "typer", "hydra._internal.hydra", "hydra.core.hydra_config", "hydra.main"),
    *(
        "run",
        "jobs.running.main",
        "jobs.cli.commands",
        "jobs.config.composition",
        "jobs.config.trust",
        "pipeline.api.pipeline",
    ),
):
    import_module(name)
