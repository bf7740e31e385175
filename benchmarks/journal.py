"""Journal lines that are durable before the next thing happens: milliseconds per image, on the disk of `outputs/`.

One process writes what a worker writes for each image: its share of a bundle's `start`, an `intend`, a `commit`; each
returns after its fsync. Beside it a bare write and fsync of as many bytes, which no program can undercut, and eight
processes at once, each with a journal of its own as workers have.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from benchmarks.measuring import Row, Scale, answer, child_answer, in_child, start_child

IMAGES = 400
BATCH = 8
PROCESSES = 8
START_TOGETHER_S = 4.0


def measure(scale: Scale) -> Iterator[Row]:
    """One process, the bare disk, eight processes."""
    images = max(BATCH, scale.of(IMAGES))
    alone = in_child("journal", scale.new_folder("journal_alone"), images, 0)
    yield Row(
        "journal.append",
        "journal: start, intend, commit of one image, each with its fsync",
        alone["image_ms"],
        "ms",
        note=f"start (of 8) {alone['start_ms']:.2f}, intend {alone['intend_ms']:.2f}, "
        f"commit {alone['commit_ms']:.2f} ms",
    )
    yield Row(
        "journal.against_disk",
        "the same against bare writes and fsyncs of as many bytes",
        alone["image_ms"] / alone["bare_ms"],
        "x",
        note=f"bare {alone['bare_ms']:.2f} ms",
    )
    together = scale.new_folder("journal_together")
    begin = time.time() + START_TOGETHER_S
    children = [start_child("journal", together, images, begin) for _ in range(PROCESSES)]
    found = [child_answer(child) for child in children]
    yield Row(
        "journal.processes",
        f"the same with {PROCESSES} processes at once, each in its own journal",
        median(one["image_ms"] for one in found),
        "ms",
        note=f"{sum(images / one['elapsed_s'] for one in found):,.0f} images/s together",
    )


def child(folder: Path, images: int, begin: float) -> None:
    """Write a journal for so many images, from the wall-clock time `begin` on."""
    from benchmarks.composing import batch_of, inline_prompts, plan_of
    from benchmarks.manifests import finished_row
    from jobs.manifest.events import done_line, row_line
    from jobs.manifest.journal import Journal

    alone = begin == 0
    batch = batch_of(inline_prompts(1), f"seeds={{start: 0, count: {images}}}", f"output.dir={folder}")
    rows = [finished_row(job) for job in plan_of(batch).jobs()]
    lines = {
        "start": b"".join(row_line("started", row) for row in rows[:BATCH]),
        "intend": row_line("saving", rows[0]),
        "commit": done_line(str(rows[0]["image_id"]), rows[0]["job_id"]),
    }
    times: dict[str, list[float]] = {"start": [], "intend": [], "commit": []}
    bare: dict[str, list[float]] = {"start": [], "intend": [], "commit": []}
    fd = os.open(folder / f"bare.{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def timed(name: str, write: Callable[[], None]) -> None:
        started = time.perf_counter()
        write()
        times[name].append((time.perf_counter() - started) * 1000)
        if alone:  # in turn, since other programs keep the disk busy now more, now less
            started = time.perf_counter()
            os.write(fd, lines[name])
            os.fsync(fd)
            bare[name].append((time.perf_counter() - started) * 1000)

    with Journal(folder) as journal:
        time.sleep(max(0.0, begin - time.time()))
        started = time.perf_counter()
        for index, row in enumerate(rows):
            if index % BATCH == 0:
                timed("start", lambda index=index: journal.start(rows[index : index + BATCH]))  # type: ignore[misc]
            timed("intend", lambda row=row: journal.intend(row))  # type: ignore[misc]
            timed("commit", lambda row=row: journal.commit(str(row["image_id"])))  # type: ignore[misc]
        elapsed = time.perf_counter() - started
        journal.release([])
    os.close(fd)
    middle = {name: median(values) for name, values in times.items()}
    answer(
        **{f"{name}_ms": value for name, value in middle.items()},
        image_ms=_per_image(times),
        bare_ms=_per_image(bare) if alone else None,
        elapsed_s=elapsed,
    )


def _per_image(times: dict[str, list[float]]) -> float:
    return median(times["start"]) / BATCH + median(times["intend"]) + median(times["commit"])


if __name__ == "__main__":
    child(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
