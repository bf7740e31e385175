"""The estimate of memory against what was measured, stage by stage, on the CPU.

A process of its own for each case loads the model of the size of SD 1.5 (`true_size.py`), held with the techniques
named, makes one batch, and reports the most host memory that each stage took. The estimate is made before, from the
headers of the files. The row shows estimate over measured at the peak: below 1 it promised too little.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measuring import Row, Scale, answer, in_child
from benchmarks.sized_model import SIDE, sized_model

GIGABYTE = 2**30


@dataclass(frozen=True, slots=True)
class Case:
    """What is made, and how the model is held."""

    side: int = SIDE
    batch: int = 1
    dtype: str = "float32"
    techniques: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """In words."""
        how = ", ".join((self.dtype, *self.techniques))
        return f"{self.batch} of {self.side}x{self.side}, {how}"


CASES = {
    "plain": Case(),
    "large": Case(side=2 * SIDE),
    "batch": Case(batch=4),
    "sliced": Case(batch=4, techniques=("vae_slicing",)),
    "dropped": Case(techniques=("drop_encoders",)),
    "streamed": Case(techniques=("leaf_offload", "disk_offload")),
    # Mapped, not converted. Small, since CPUs without instructions for bfloat16 are a hundred times slower in it.
    "mapped": Case(side=SIDE // 4, dtype="bfloat16"),
}
QUICK = ("plain", "streamed")


def measure(scale: Scale) -> Iterator[Row]:
    """One row per case, then the worst of them."""
    model, parameters = sized_model(scale)
    ratios = {}
    for name in QUICK if scale.quick else CASES:
        found = in_child("estimates", name, model)
        predicted, measured = max(found["predicted"].values()), max(found["measured"].values())
        ratios[name] = predicted / measured
        each = ", ".join(
            f"{stage} {found['predicted'][stage] / GIGABYTE:.2f} / {taken / GIGABYTE:.2f}"
            for stage, taken in found["measured"].items()
        )
        yield Row(
            f"estimates.{name}",
            f"estimate over measured, {parameters / 1e9:.2f} billion parameters, {CASES[name].text}",
            ratios[name],
            "x",
            note=f"GB estimated / measured: {each}",
        )
    worst = max(ratios, key=lambda name: abs(ratios[name] - 1))
    yield Row(
        "estimates.worst",
        "largest error of an estimate",
        abs(ratios[worst] - 1) * 100,
        "%",
        note=f"{CASES[worst].text}: {ratios[worst]:.2f} x what was measured",
    )


def child(case: Case, folder: Path) -> None:
    """Estimate, load, make a batch; say what was predicted and what each stage took."""
    from pipeline.generation.generate import generate_batch
    from pipeline.loading.load import load
    from pipeline.memory.planning.estimate import OVERHEAD, Shape, Sizes, estimate
    from pipeline.registry.model_settings import identify
    from pipeline.request import GeneratedImage, ImageRequest, MemorySettings
    from pipeline.system.process_memory import keep_freed

    keep_freed()  # as a worker on the CPU
    settings, files = identify(str(folder))
    memory = MemorySettings(dtype=case.dtype, techniques=case.techniques)  # type: ignore[arg-type]
    shape = Shape(case.side, case.side, case.batch, guided=False)
    predicted = estimate(Sizes.from_files(files), memory, shape, "cpu")
    requests = [
        ImageRequest("a red house", "", seed, 1, 1.0, case.side, case.side, "DDIM", None, settings, memory)
        for seed in range(case.batch)
    ]
    model = load(settings, memory, "cpu")
    pictures = generate_batch(model, requests)
    assert all(isinstance(picture, GeneratedImage) for picture in pictures), pictures
    answer(
        predicted={stage: taken + OVERHEAD["cpu"] for stage, taken in predicted.stage_bytes.items()},
        measured={stage: peaks["rss"] for stage, peaks in model.stage_peaks.items()},
    )


if __name__ == "__main__":
    child(CASES[sys.argv[1]], Path(sys.argv[2]))
