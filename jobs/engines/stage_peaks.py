"""Peak memory of each stage, measured by workers beside the estimate, for the run's summary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.request import GeneratedImage


@dataclass(frozen=True, slots=True)
class StagePeak:
    """The peak memory of a stage in one bundle, with its estimate; bytes.

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
        """The peak on the device, if there is one; else on the host."""
        return self.reserved_bytes or self.rss_bytes or 0


class StagePeaks:
    """For each kind of picture and stage, the largest peak of all bundles."""

    def __init__(self) -> None:
        self._largest: dict[tuple[object, ...], StagePeak] = {}

    def add(self, peaks: Iterable[StagePeak]) -> None:
        """Keep those peaks that are larger than the known ones."""
        for one in peaks:
            key = (one.model, one.width, one.height, one.techniques, one.stage)
            known = self._largest.get(key)
            if known is None or one.taken_bytes > known.taken_bytes:
                self._largest[key] = one

    def all(self) -> tuple[StagePeak, ...]:
        """All peaks, in the order in which the kinds first appeared."""
        return tuple(self._largest.values())


def measured(image: GeneratedImage, predicted_stage_bytes: Mapping[str, int]) -> list[StagePeak]:
    """The peaks of a picture's bundle, stage by stage."""
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
