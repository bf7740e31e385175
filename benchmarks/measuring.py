"""What every benchmark yields (rows) and how it measures: child processes, peak memory, ratios of pairs."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

_LOADED = re.compile(r"model .* loaded in ")
_MADE = re.compile(r"(\d+) of \d+ images")

ROOT = Path(__file__).resolve().parent.parent
MEGABYTE = 10**6

OK, MISSED, INFORMATION, NOT_MEASURED = "ok", "MISSED", "", "not measured"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `key` stays the same whatever the sizes; `at_most` is None where nothing is promised.

    `measured` is None where nothing could be measured, and `note` then says why.
    """

    key: str
    what: str
    measured: float | None
    unit: str
    at_most: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Measured over promised; above 1 the promise is missed."""
        if self.measured is None or self.at_most is None:
            return None
        return self.measured / self.at_most if self.at_most else float(self.measured > 0)

    @property
    def verdict(self) -> str:
        """`ok`, `MISSED`, `not measured`, or nothing where nothing is promised."""
        if self.measured is None:
            return NOT_MEASURED
        if self.ratio is None:
            return INFORMATION
        return OK if self.ratio <= 1 else MISSED


@dataclass(frozen=True, slots=True)
class Part:
    """What of `gpu.py` to measure; what is empty is not restricted. `cards` are in GB."""

    models: tuple[str, ...] = ()
    cards: tuple[int, ...] = ()
    ways: tuple[str, ...] = ()
    images: int | None = None


@dataclass(frozen=True, slots=True)
class Scale:
    """How large a measurement is, and the folder for its files: on the disk that users' pictures go to."""

    quick: bool
    folder: Path
    most_rounds: int | None = None
    part: Part = Part()
    long: bool = False

    def of(self, size: int) -> int:
        """The size, a tenth of it when quick."""
        return max(1, size // 10) if self.quick else size

    def rounds(self, count: int, long: int | None = None) -> int:
        """How often to repeat: once when quick, `long` times (where given) when long, no more often than asked for."""
        count = long if self.long and long else count
        return 1 if self.quick else min(count, self.most_rounds or count)

    def new_folder(self, name: str) -> Path:
        """An empty folder that is deleted with all the others in the end."""
        path = self.folder / name
        path.mkdir(parents=True)
        return path


def environment() -> dict[str, str]:
    """Of child processes: ours, but not asking the hub, not writing colours, and finding `tests/tiny_models.py`."""
    paths = [str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])]
    quiet = {"HF_HUB_OFFLINE": "1", "NO_COLOR": "1", "PYTHONWARNINGS": "ignore"}
    return {**os.environ, **quiet, "PYTHONPATH": os.pathsep.join(paths)}


def command_seconds(*command: str) -> float:
    """Wall-clock seconds of `python COMMAND`, from before its process exists until it is gone.

    Raises RuntimeError with what it said on standard error when it fails.
    """
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"python {' '.join(command)[:200]}: exit {done.returncode}: {done.stderr[-2000:]}")
    return seconds


def children_cpu_seconds() -> float:
    """CPU time, user and system, of all child processes that have ended.

    Unlike wall-clock time it hardly depends on what else the machine does.
    """
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def start_child(module: str, *arguments: object) -> subprocess.Popen[str]:
    """`python -m benchmarks.MODULE ARGUMENTS`, running; see `child_answer`."""
    return subprocess.Popen(
        [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def child_answer(child: subprocess.Popen[str]) -> dict[str, Any]:
    """The JSON object on the last line that a child prints. Raises RuntimeError when it fails."""
    output, errors = child.communicate()
    if child.returncode:
        raise RuntimeError(f"{child.args!r}: exit {child.returncode}: {errors[-2000:]}")
    answer = json.loads(output.splitlines()[-1])
    assert isinstance(answer, dict)
    return answer


def in_child(module: str, *arguments: object) -> dict[str, Any]:
    """Run a measurement in a process of its own, so that its memory and imports are its own."""
    return child_answer(start_child(module, *arguments))


def our_run(*arguments: object) -> dict[str, Any]:
    """`run.py` as a user starts it; its lines of progress tell when a model was loaded and the last image was durable.

    `generate_s` is from the first load to that; `loads` and `made` count. Raises RuntimeError when it fails.
    """
    child = subprocess.Popen(
        [sys.executable, "run.py", *map(str, arguments)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stderr is not None
    loaded: list[float] = []
    finished, made, said = 0.0, 0, ""
    for line in child.stderr:
        now, said = time.perf_counter(), line
        if _LOADED.match(line):
            loaded.append(now)
        elif counted := _MADE.match(line):
            finished, made = now, int(counted[1])
    if child.wait():
        raise RuntimeError(f"{child.args!r}: exit {child.returncode}: {said}")
    return {"generate_s": finished - loaded[0], "loads": len(loaded), "made": made}


def answer(**values: object) -> None:
    """The child's side of `in_child`."""
    print(json.dumps(values), flush=True)


def interleaved(measures: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Every measure once per round, in turn: what slows the machine for a while slows all of them."""
    values: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            values[name].append(measure())
    return values


def ratio_of_pairs(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median of the ratios within each round."""
    return median(one / other for one, other in zip(ours, theirs, strict=True))


def peak_rss_bytes() -> int:
    """The most memory that this process had at once.

    Not `getrusage`: Linux counts there what the parent had when it started this process.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
