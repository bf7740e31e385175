"""Measures how long batches take in the denoiser and the decoder, for the plans of later runs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pipeline.generation.guidance import is_guided
from pipeline.memory.device.loaded_components import components, streaming_of
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.memory.planning.rates import MeasuredRates
from pipeline.memory.planning.sizes import Sizes
from pipeline.memory.planning.techniques import QUANTIZATIONS, STREAMING
from pipeline.memory.planning.timings import TimingKind, Timings, device_name, kind_of, passes
from pipeline.memory.planning.working_memory import DENOISERS, denoise_operations
from pipeline.request import ImageRequest

if TYPE_CHECKING:
    import torch


_SLOWER = {*STREAMING, *QUANTIZATIONS["denoiser"]}
"""Techniques with which a denoiser does other things besides computing."""


@dataclass(slots=True)
class BatchTiming:
    """The times of one batch: when it entered and left the denoiser and the decoder; decoding may be in parts.

    `sound` as long as nothing failed on the way, which would count as work.
    """

    device: torch.device
    sound: bool = True
    _denoised: list[tuple[Any, Any]] = field(default_factory=list)
    _decoded: list[tuple[Any, Any]] = field(default_factory=list)

    @contextmanager
    def timed(self, stage: Literal["denoise", "decode"]) -> Iterator[None]:
        """Measure this block, if it ends without an exception."""
        began = _now(self.device)
        yield
        (self._denoised if stage == "denoise" else self._decoded).append((began, _now(self.device)))

    def seconds(self) -> tuple[float, float]:
        """Seconds in the denoiser and in the decoder. Waits for the device."""
        denoised, decoded = (sum(map(_between, spans)) for spans in (self._denoised, self._decoded))
        return denoised, decoded


class TimingWriter:
    """Records the times of whole batches, except the first of each kind and size on a model, which is a warm-up.

    Without `remember` nothing is noted.
    """

    def __init__(self, model: LoadedModel, *, remember: bool) -> None:
        self._model, self._timings = model, Timings() if remember else None
        self._rates = MeasuredRates()

    def note(self, timing: BatchTiming, requests: Sequence[ImageRequest], *, compiled: bool) -> None:
        """Record a batch that is denoised and decoded."""
        if self._timings is None or not timing.sound:
            return
        first, kind = requests[0], self._kind(requests[0], compiled=compiled)
        # A compiled model is compiled again when other LoRAs are on it.
        of_a_kind = (kind, len(requests), tuple(lora.sha256 for lora in first.adapters.loras))
        if of_a_kind not in self._model.warm:
            self._model.warm.add(of_a_kind)
            return
        calls, seconds = passes(first, first.adapters), timing.seconds()
        self._timings.note(kind, calls, len(requests), *seconds)
        if self._model.device.type == "cuda" and not compiled and not first.step_cache and seconds[0]:
            self._note_rates(kind.device, first, calls * len(requests) / seconds[0])

    def _note_rates(self, device: str, request: ImageRequest, passes_per_second: float) -> None:
        """How fast the card copied, where blocks passed through it, or else computed."""
        model, known = self._model, self._model.files.family
        denoiser = Sizes.from_files(model.files).largest("denoiser")
        streaming = streaming_of(components(model)[model.files.denoiser])
        copied = streaming.copy_rate() if streaming is not None else None
        if copied is not None:
            self._rates.note(device, "copy", copied)
        elif denoiser is not None and known in DENOISERS and not {*model.memory.techniques} & _SLOWER:
            twice = 2 if is_guided(model.pipe, request.guidance_scale) else 1
            each = denoise_operations(known, denoiser.parameters, request.width, request.height)
            self._rates.note(device, "compute", each * twice * passes_per_second)

    def save(self) -> None:
        """Write the recorded times."""
        if self._timings is not None:
            self._timings.save()

    def _kind(self, request: ImageRequest, *, compiled: bool) -> TimingKind:
        model, name = self._model, device_name(self._model.device.type)
        return kind_of(model.settings, model.memory, request, request.adapters, model.speed, name, compiled=compiled)


def _now(device: torch.device) -> Any:
    """A point in time. On a GPU it comes when all is done that was given to it before, and nothing waits for it."""
    import torch

    if device.type == "cuda":
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(device))
        return event
    if device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()


def _between(span: tuple[Any, Any]) -> float:
    began, ended = span
    if isinstance(began, float):
        return float(ended - began)
    ended.synchronize()
    return float(began.elapsed_time(ended)) / 1000
