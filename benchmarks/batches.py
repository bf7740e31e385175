"""Demo images of ours against a plain diffusers loop (`plain_loop.py`): one image, then 64 singly and in lists of 8.

All three are processes of their own, run in turn; ratios are within a round. Two times are compared: *generation*, from
the loaded model to the last picture saved (ours: file and row durable), and *whole process*, from starting `python` to
its end, so with imports, composition, planning, load and sealing. Ours runs with the defaults a user gets. Pictures are
compared pixel by pixel: equal ones are the same work (batches of another size than eight may differ in the last digit).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.composing import prompt_file
from benchmarks.measuring import Row, Scale, children_cpu_seconds, in_child, our_run, ratio_of_pairs

IMAGES = 64
BATCH = 8
SEED = 7
ROUNDS_OF_ONE = 3
ROUNDS, LONG_ROUNDS = 4, 5
MOST = {"singly": (0.33, 0.42), "batched": (1.0, 0.80)}
"""At most so much of the loop's time, for generation and for the whole process."""

MOST_ONE = 0.75
SAID = {"singly": "one call per prompt", "batched": f"lists of {BATCH}"}


@dataclass(slots=True)
class Times:
    """Seconds of each round."""

    generation: list[float] = field(default_factory=list)
    process: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def measure(scale: Scale) -> Iterator[Row]:
    """Ratios of generation and of whole-process time, on whatever device the product chooses."""
    images = max(BATCH, scale.of(IMAGES) // BATCH * BATCH)
    folder = scale.new_folder("batches")
    yield _one_image(folder / "one", scale.rounds(ROUNDS_OF_ONE))
    times, same = compare(folder, images, scale.rounds(ROUNDS, LONG_ROUNDS))
    yield from rows("batches", times, images, same)


def _one_image(folder: Path, rounds: int) -> Row:
    """One picture, from starting `python` to the end of the process."""
    folder.mkdir()
    given = prompt_file(folder / "prompts.txt", 1)
    seconds: dict[str, list[float]] = {"ours": [], "plain": []}
    for number in range(rounds):
        place = folder / str(number)
        started = time.perf_counter()
        our_run(*given, f"seeds={SEED}", f"output.dir={place / 'ours'}")
        between = time.perf_counter()
        _loop(folder, place / "plain", 1)
        seconds["ours"].append(between - started)
        seconds["plain"].append(time.perf_counter() - between)
    return Row(
        "batches.one.whole",
        "one demo image against a plain script that loads, makes and saves one: whole process",
        ratio_of_pairs(seconds["ours"], seconds["plain"]),
        "x",
        MOST_ONE,
        f"{median(seconds['ours']):.1f} s against {median(seconds['plain']):.1f} s",
    )


def compare(folder: Path, images: int, rounds: int) -> tuple[dict[str, Times], int]:
    """Make the pictures all three ways in every round; also how many of ours equal those of the batched loop."""
    given = prompt_file(folder / "prompts.txt", images)
    times = {name: Times() for name in ("ours", "singly", "batched")}
    for number in range(rounds):
        place = folder / str(number)
        ways: dict[str, Callable[[], dict[str, Any]]] = {
            "ours": lambda place=place: our_run(  # type: ignore[misc]
                *given, f"seeds={SEED}", f"output.dir={place / 'ours'}"
            ),
            "batched": lambda place=place: _loop(folder, place / "batched", BATCH),  # type: ignore[misc]
            "singly": lambda place=place: _loop(folder, place / "singly", 1),  # type: ignore[misc]
        }
        for name, make in ways.items():
            cpu_before, started = children_cpu_seconds(), time.perf_counter()
            found = make()
            times[name].process.append(time.perf_counter() - started)
            times[name].cpu.append(children_cpu_seconds() - cpu_before)
            times[name].generation.append(found["generate_s"])
    return times, _equal_pictures(folder / "0" / "ours", folder / "0" / "batched")


def rows(key: str, times: dict[str, Times], images: int, same: int) -> Iterator[Row]:
    """Four ratios and our own pace."""
    ours = times["ours"]
    for name, most in MOST.items():
        theirs = times[name]
        for kind, at_most, mine, other in (
            ("generation", most[0], ours.generation, theirs.generation),
            ("whole process", most[1], ours.process, theirs.process),
        ):
            yield Row(
                f"{key}.{name}.{kind.partition(' ')[0]}",
                f"{images} demo images against a plain loop, {SAID[name]}, and save: {kind}",
                ratio_of_pairs(mine, other),
                "x",
                at_most,
                f"{median(mine):.1f} s against {median(other):.1f} s"
                + (f"; in CPU time {ratio_of_pairs(ours.cpu, theirs.cpu):.2f} x" if mine is ours.process else ""),
            )
    yield Row(
        f"{key}.per_image",
        "seconds per demo image, generation",
        median(ours.generation) / images,
        "s",
        note=f"{same} of {images} pictures equal those of the hand-batched loop, pixel by pixel",
    )


def _loop(folder: Path, place: Path, batch: int) -> dict[str, Any]:
    return in_child("plain_loop", folder / "prompts.txt", place, "--batch", batch, "--seed", SEED)


def _equal_pictures(ours: Path, theirs: Path) -> int:
    import PIL.Image

    from jobs.archive.search import search

    found = search(ours, columns=("prompt_index", "path"))
    pairs = ((ours / row["path"], theirs / f"{row['prompt_index']:05d}.png") for row in found)
    return sum(
        PIL.Image.open(one).convert("RGB").tobytes() == PIL.Image.open(other).convert("RGB").tobytes()
        for one, other in pairs
    )
