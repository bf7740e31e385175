"""How long commands take that make nothing: help, search over 10,000 rows, a dry run.

Each is a process of its own, started in turn with `python -c "import hydra, pydantic, duckdb"`, the least that a
program of these libraries can take; what is compared is the ratio within each round. Files are in the page cache.
On a busy machine the ratio of CPU times, in the note, says more.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from benchmarks.manifests import write_searchable
from benchmarks.measuring import (
    Row,
    Scale,
    children_cpu_seconds,
    command_seconds,
    interleaved,
    ratio_of_pairs,
)

MOST = {"help": 2.0, "search": 1.5}
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
    cpu: dict[str, list[float]] = {name: [] for name in commands}

    def timed(name: str) -> float:
        before = children_cpu_seconds()
        taken = command_seconds(*commands[name])
        cpu[name].append(children_cpu_seconds() - before)
        return taken

    seconds = interleaved({name: partial(timed, name) for name in commands}, scale.rounds(ROUNDS))
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
            at_most=MOST.get(name),
            note=f"{min(seconds[name]):.2f} s against {min(reference):.2f} s at best; "
            f"in CPU time {ratio_of_pairs(cpu[name], cpu['reference']):.2f} x",
        )
