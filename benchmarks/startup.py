"""How long commands take that make nothing: help, search over 10,000 rows, a dry run.

Each is a process of its own, started in turn with `python -c "import hydra, pydantic, duckdb"`, the least that a
program of these libraries can take; what is compared is the ratio within each round. Files are in the page cache.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.manifests import write_searchable
from benchmarks.measuring import Row, Scale, command_seconds, interleaved, ratio_of_pairs

MOST = 2.5
ROUNDS = 9
REFERENCE = "import hydra, pydantic, duckdb"


def measure(scale: Scale) -> Iterator[Row]:
    """`run.py --help`, `darkroom search`, `run.py dry_run=true`, each against the reference."""
    rows = scale.of(10_000)
    folder = scale.new_folder("startup")
    write_searchable(folder, rows, parts=2)
    commands = {
        "reference": ("-c", REFERENCE),
        "help": ("run.py", "--help"),
        "search": ("-m", "jobs", "search", "sunset", "--output-dir", str(folder)),
        "dry_run": ("run.py", "prompts=batch1", "dry_run=true", f"output.dir={folder}"),
    }
    for command in commands.values():
        command_seconds(*command)
    seconds = interleaved(
        {name: lambda command=command: command_seconds(*command) for name, command in commands.items()},  # type: ignore[misc]
        scale.rounds(ROUNDS),
    )
    reference = seconds["reference"]
    what = {
        "help": "run.py --help",
        "search": f"darkroom search, {rows:,} rows",
        "dry_run": "run.py prompts=batch1 dry_run=true",
    }
    for name, text in what.items():
        yield Row(
            key=f"startup.{name}",
            what=f"{text}, against importing hydra, pydantic, duckdb",
            measured=ratio_of_pairs(seconds[name], reference),
            unit="x",
            at_most=None if name == "dry_run" else MOST,
            note=f"{min(seconds[name]):.2f} s against {min(reference):.2f} s at best",
        )
