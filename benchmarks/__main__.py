"""`python -m benchmarks [NAME ...] [--quick | --long] [--json FILE] [--markdown FILE]`: measure, print, keep JSON."""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.gpu import MODELS
from benchmarks.gpu_ways import LEVELS, WAYS
from benchmarks.machine import machine
from benchmarks.measuring import MISSED, ROOT, Part, Row, Scale
from benchmarks.report import as_json, as_markdown, cells, print_table

NAMES = (
    "startup", "planning", "resume", "overhead", "batches", "forwards", "sweeps", "models", "memory_levels",
    "estimates", "searching", "gallery", "registry", "selection", "journal", "gpu",
)  # fmt: skip
"""The modules of this package that measure, in the order of the table."""

LONG = ("memory_levels", "estimates", "gpu")
"""Those that take minutes to hours and promise nothing on a CPU: measured when named, and with `--long`."""

BUSY = 0.3
"""Load in the last minute above which figures are not to be trusted."""

OUTPUT = ROOT / "outputs" / "benchmarks"


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when everything could be measured, whatever the figures; 1 when a measurement broke off."""
    options = _options(arguments)
    part = Part(tuple(options.model), tuple(options.card), tuple(options.way), options.images)
    date, facts = datetime.now(UTC), machine()
    if facts["load_before"] > BUSY:
        print(
            f"this machine is busy (load {facts['load_before']}): figures will be worse than they are", file=sys.stderr
        )
    OUTPUT.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".work-", dir=OUTPUT))
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")  # nothing is known from earlier runs, and nothing stays
    rows: list[Row] = []
    broken: list[str] = []
    try:
        for name in options.names or [name for name in NAMES if options.long or name not in LONG]:
            started = time.perf_counter()
            try:
                for row in _measured(name, Scale(options.quick, folder, options.rounds, part, options.long)):
                    rows.append(row)
                    print("  ".join(text for text in cells(row) if text), file=sys.stderr, flush=True)
            except Exception as error:
                traceback.print_exc()
                broken.append(name)
                reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
                rows.append(Row(f"{name}.broken", name, None, "", note=f"broke off: {reason}"))
            print(f"({name}: {time.perf_counter() - started:.0f} s)", file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print_table(rows, facts, quick=options.quick)
    file = options.json or OUTPUT / f"{date:%Y%m%dT%H%M%SZ}.json"
    file.write_text(as_json(rows, facts, date, quick=options.quick), encoding="utf-8")
    if options.markdown:
        options.markdown.write_text(as_markdown(rows, facts, date, quick=options.quick), encoding="utf-8")
    missed = sum(row.verdict == MISSED for row in rows)
    print(f"{missed} of {sum(row.at_most is not None for row in rows)} numbers missed; written to {file}")
    return 1 if broken else 0


def _measured(name: str, scale: Scale) -> Iterator[Row]:
    yield from importlib.import_module(f"benchmarks.{name}").measure(scale)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=sys.modules["benchmarks"].__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"what to measure: {', '.join(NAMES)}")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="a tenth of the sizes, one round: does it run at all?")
    size.add_argument(
        "--long", action="store_true", help=f"{', '.join(LONG)} too, and more rounds of what makes images"
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="repeat no more often than this: faster, less certain")
    parser.add_argument("--json", type=Path, metavar="FILE", help="default: outputs/benchmarks/<date>.json")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table as Markdown, too")
    parts = parser.add_argument_group("for a part of `gpu`", "each can be given several times")
    parts.add_argument("--model", action="append", default=[], choices=MODELS, help="a model of true size")
    parts.add_argument("--card", action="append", default=[], type=int, choices=LEVELS, help="GB of memory")
    parts.add_argument("--way", action="append", default=[], choices=WAYS, help="ours, or one of diffusers'")
    parts.add_argument("--images", type=int, metavar="N", help="how many images each way makes")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in NAMES]:
        parser.error(f"unknown: {', '.join(unknown)}; choose from {', '.join(NAMES)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
