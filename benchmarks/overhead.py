"""What the worker's main thread does per image besides encoding, denoising and decoding.

`jobs.engines.worker.Worker` makes 64 demo images in batches of eight, in a process of its own. Overhead is the time
from when it asks for the second bundle (the first one brings imports and load) until it has handed the last pictures to
its saver threads, less the seconds that it reports for the three phases. What the saver threads do meanwhile is
measured afterwards on one thread with nothing else running: it takes no time of the main thread, but some of its CPU.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.measuring import Row, Scale, answer, in_child

if TYPE_CHECKING:
    from jobs.engines.messages import Message
    from jobs.job import Bundle
    from jobs.planning.validation import Batch

IMAGES = 64
BATCH = 8
MOST_MILLISECONDS = 2.0
ROUNDS, LONG_ROUNDS = 1, 3


def measure(scale: Scale) -> Iterator[Row]:
    """Overhead per image, and what a saver takes per image."""
    images = max(BATCH, scale.of(IMAGES) // BATCH * BATCH)
    found: list[dict[str, Any]] = [
        in_child("overhead", scale.new_folder(f"overhead{number}"), images)
        for number in range(scale.rounds(ROUNDS, LONG_ROUNDS))
    ]
    every = ", ".join(f"{one['overhead_ms']:.1f}" for one in found)
    middle = sorted(found, key=lambda one: float(one["overhead_ms"]))[len(found) // 2]
    yield Row(
        "overhead.main_thread",
        f"main thread per image beyond encode, denoise, decode ({images} demo images)",
        middle["overhead_ms"],
        "ms",
        MOST_MILLISECONDS,
        f"of {middle['image_ms']:.0f} ms per image; rounds: {every} ms",
    )
    yield Row(
        "overhead.saver",
        "a saver thread per image: encode, verify, scan, write, journal",
        middle["save_ms"],
        "ms",
        note=f"{middle['save_cpu_ms']:.1f} ms of it on the CPU, the rest waiting for the disk",
    )
    yield Row(
        "overhead.end",
        "from the last picture to the end: the last saves, sealing",
        middle["end_ms"],
        "ms",
    )


def child(folder: Path, images: int) -> None:
    """Make a first bundle and then so many images; say what came beside the phases."""
    from benchmarks.composing import batch_of, plan_of, prompt_file, worker_settings
    from jobs.engines.messages import Made, Measured
    from jobs.engines.worker import Worker

    given = prompt_file(folder / "prompts.txt", BATCH + images)
    alike = (f"batch_size={BATCH}", f"bundle_images={BATCH}")
    batch = batch_of(*given, *alike, f"output.dir={folder / 'images'}")
    bundles = list(plan_of(batch).bundles())
    messages: list[Message] = []
    asked: list[float] = []

    def handed_out() -> Iterator[Bundle]:
        for bundle in bundles:
            asked.append(time.perf_counter())
            yield bundle
        asked.append(time.perf_counter())

    Worker(worker_settings(batch), messages.append, lambda: False).run(handed_out())
    ended = time.perf_counter()
    first = {one.job.id for one in bundles[0].assignments}
    made = [message for message in messages if isinstance(message, Made) and message.job_id not in first]
    assert len(made) == images, messages
    elapsed = asked[-1] - asked[1]
    _first, *others = [message.metrics for message in messages if isinstance(message, Measured)]
    phases = sum(one.encode_seconds + one.denoise_seconds + one.decode_seconds for one in others)
    save_ms, save_cpu_ms = _saving(batch, bundles[0], folder / "saved", images)
    answer(
        overhead_ms=(elapsed - phases) / images * 1000,
        image_ms=elapsed / images * 1000,
        end_ms=(ended - asked[-1]) * 1000,
        save_ms=save_ms,
        save_cpu_ms=save_cpu_ms,
    )


def _saving(batch: Batch, bundle: Bundle, folder: Path, images: int) -> tuple[float, float]:
    """Median milliseconds, wall clock and CPU, that one save of a demo picture takes, as the worker saves it."""
    from jobs.engines.image_saver import ImageSaver
    from jobs.manifest.journal import Journal
    from pipeline.generation.generate import generate_batch
    from pipeline.loading.load import load
    from pipeline.request import GeneratedImage

    requests = [one.job.request for one in bundle.assignments]
    model = load(requests[0].model, bundle.held, batch.device.kind)
    pictures = generate_batch(model, requests)
    wall, cpu = [], []
    with Journal(folder) as journal:
        saver = ImageSaver(folder, journal, "20260101T000000Z-00000000")
        for number in range(images):
            one, picture = bundle.assignments[number % BATCH], pictures[number % BATCH]
            assert isinstance(picture, GeneratedImage)
            started, cpu_started = time.perf_counter(), time.thread_time()
            saver.save(picture, one.job, one.attempt, batch.saves[0])
            wall.append(time.perf_counter() - started)
            cpu.append(time.thread_time() - cpu_started)
    return median(wall) * 1000, median(cpu) * 1000


if __name__ == "__main__":
    child(Path(sys.argv[1]), int(sys.argv[2]))
