"""How much memory each stage took, against the estimate: measured by workers, kept for the run's summary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.request import GeneratedImage


@dataclass(frozen=True, slots=True)
class StagePeak:
    """The most memory that a stage took in one bundle, with the estimate of it; bytes.

    `stage` is encode, denoise or decode.

    `allocated_bytes` and `reserved_bytes` are the device's, `rss_bytes` is the process's host memory.
    """

    model: str
    width: int
    height: int
    techniques: tuple[str, ...]
    stage: str
    allocated_bytes: int | None
    reserved_bytes: int | None
    rss_bytes: int | None
    predicted_bytes: int | None

    @property
    def taken_bytes(self) -> int:
        """On the device, where there is one; else on the host."""
        return self.reserved_bytes or self.rss_bytes or 0


class StagePeaks:
    """For each kind of picture and stage the bundle that took most."""

    def __init__(self) -> None:
        self._largest: dict[tuple[object, ...], StagePeak] = {}

    def add(self, peaks: Iterable[StagePeak]) -> None:
        """Keep those that are larger than what is known."""
        for one in peaks:
            key = (one.model, one.width, one.height, one.techniques, one.stage)
            known = self._largest.get(key)
            if known is None or one.taken_bytes > known.taken_bytes:
                self._largest[key] = one

    def all(self) -> tuple[StagePeak, ...]:
        """In the order in which the kinds came first."""
        return tuple(self._largest.values())


def measured(image: GeneratedImage, predicted_stage_bytes: Mapping[str, int]) -> list[StagePeak]:
    """What the bundle of a picture took, stage by stage."""
    request = image.request
    return [
        StagePeak(
            model=request.model.name,
            width=request.width,
            height=request.height,
            techniques=image.memory.techniques,
            stage=stage,
            allocated_bytes=peaks.get("allocated"),
            reserved_bytes=peaks.get("reserved"),
            rss_bytes=peaks.get("rss"),
            predicted_bytes=predicted_stage_bytes.get(stage),
        )
        for stage, peaks in image.stage_peaks.items()
    ]
