"""Pictures after denoising, and each finished picture with all facts of its making."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pipeline.errors import BadPixels, JobFailure
from pipeline.generation.decode import Decoded, Undecoded
from pipeline.generation.denoise import Denoised
from pipeline.generation.recovery.fallbacks import Strategy
from pipeline.generation.timing import BatchTiming
from pipeline.memory.planning.techniques import ordered
from pipeline.request import GeneratedImage, ImageRequest, LoraMatch, MemorySettings, PromptTokens
from pipeline.system.environment import runtime_facts
from pipeline.system.process_memory import peak_rss_bytes

if TYPE_CHECKING:
    import torch

_DECODING = ("vae_slicing", "vae_tiling", "tiny_vae")


@dataclass(slots=True)
class DenoisedBatch:
    """Pictures that were denoised together: their `places` in the bundle, the result, and its conditions.
    `seconds_each` is one picture's share of the time, `timing` that of the batch.
    """

    places: list[int]
    denoised: Denoised
    strategy: Strategy
    timing: BatchTiming
    memory: MemorySettings
    seconds_each: float
    speed: dict[str, Any]
    lora_matches: tuple[LoraMatch, ...]
    predicted_peak_bytes: int | None
    stage_peaks: dict[str, dict[str, int]]

    def decoding_failed(self) -> None:
        """Move undecoded latents off the device; the batch's time is not used as a measurement."""
        if isinstance(self.denoised.result, Undecoded):
            self.denoised.result.to_host()
        self.timing.sound = False

    def decoded(self, memory: MemorySettings, seconds: float, peaks: dict[str, dict[str, int]]) -> DenoisedBatch:
        """This batch with the facts of decoding some of its pictures; `memory` has the techniques then applied."""
        kept = {name for name in self.memory.techniques if name not in _DECODING}
        techniques = ordered(kept | {name for name in memory.techniques if name in _DECODING})
        return replace(
            self,
            memory=replace(self.memory, techniques=techniques),
            seconds_each=self.seconds_each + seconds,
            stage_peaks={**self.stage_peaks, **peaks},
        )


def generated_image(
    request: ImageRequest,
    batch: DenoisedBatch,
    index: int,
    decoded: Decoded,
    row: int,
    device: torch.device,
    tokens: tuple[PromptTokens, ...],
) -> GeneratedImage | JobFailure:
    """The picture, or why it is invalid; `index` is its place in its batch, `row` in what was decoded together.

    A flagged one is black and yet a picture.
    """
    denoised = batch.denoised
    flagged = decoded.flags[row] if decoded.flags is not None else None
    fault = None if flagged else decoded.faults[row]
    if fault:
        return BadPixels(fault)
    pixels = decoded.pixels[row]
    height, width = pixels.shape[:2]
    if (width, height) != (request.width, request.height):
        return JobFailure(
            f"{denoised.pipeline_class} made {width} x {height} pixels instead of {request.width} x {request.height}; "
            f"request the size that it makes (sampling.width={width} sampling.height={height})"
        )
    peaks = [one["allocated"] for one in batch.stage_peaks.values() if "allocated" in one]
    return GeneratedImage(
        request=request,
        pixels=pixels,
        pipeline_class=denoised.pipeline_class,
        scheduler_class=denoised.scheduler_class,
        scheduler_config=denoised.scheduler_config,
        noise_shape=tuple(denoised.noise[index].shape),
        noise_sha256=hashlib.sha256(denoised.noise[index].numpy().tobytes()).hexdigest(),
        batch_size=len(batch.places),
        batch_index=index,
        seconds=batch.seconds_each,
        runtime=runtime_facts(device, batch.speed),
        memory=batch.memory,
        peak_vram_bytes=max(peaks, default=None),
        peak_rss_bytes=peak_rss_bytes(),
        predicted_peak_bytes=batch.predicted_peak_bytes,
        stage_peaks=batch.stage_peaks,
        prompt_tokens=tokens,
        lora_matches=batch.lora_matches,
        flagged=flagged,
    )
