"""One finished picture with all that is known of how it came about."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pipeline.errors import BadPixels, JobFailure
from pipeline.generation.decode import Decoded
from pipeline.generation.denoise import Denoised
from pipeline.memory.planning.techniques import ordered
from pipeline.request import GeneratedImage, ImageRequest, LoraMatch, MemorySettings, PromptTokens
from pipeline.system.environment import runtime_facts
from pipeline.system.process_memory import peak_rss_bytes

if TYPE_CHECKING:
    import torch

_DECODING = ("vae_slicing", "vae_tiling", "tiny_vae")


@dataclass(frozen=True, slots=True)
class Conditions:
    """What pictures of one forward pass have in common. `seconds_each` is one picture's share."""

    batch_size: int
    memory: MemorySettings
    seconds_each: float
    speed: dict[str, Any]
    lora_matches: tuple[LoraMatch, ...]
    predicted_peak_bytes: int | None
    stage_peaks: dict[str, dict[str, int]]

    def decoded(self, memory: MemorySettings, seconds: float, peaks: dict[str, dict[str, int]]) -> Conditions:
        """With what decoding added; `memory` is how the model was held then."""
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
    index: int,
    decoded: Decoded,
    row: int,
    denoised: Denoised,
    conditions: Conditions,
    device: torch.device,
    tokens: tuple[PromptTokens, ...],
) -> GeneratedImage | JobFailure:
    """The picture, or why it is none; `index` is its place in its batch, `row` in what was decoded at once.

    A flagged one is black and yet a picture.
    """
    flagged = decoded.flags[row] if decoded.flags is not None else None
    fault = None if flagged else decoded.faults[row]
    if fault:
        return BadPixels(fault)
    pixels = decoded.pixels[row]
    height, width = pixels.shape[:2]
    if (width, height) != (request.width, request.height):
        return JobFailure(
            f"{denoised.pipeline_class} made {width} x {height} pixels instead of {request.width} x {request.height}; "
            f"ask for what it makes (sampling.width={width} sampling.height={height})"
        )
    peaks = [one["allocated"] for one in conditions.stage_peaks.values() if "allocated" in one]
    return GeneratedImage(
        request=request,
        pixels=pixels,
        pipeline_class=denoised.pipeline_class,
        scheduler_class=denoised.scheduler_class,
        scheduler_config=denoised.scheduler_config,
        noise_shape=tuple(denoised.noise[index].shape),
        noise_sha256=hashlib.sha256(denoised.noise[index].numpy().tobytes()).hexdigest(),
        batch_size=conditions.batch_size,
        batch_index=index,
        seconds=conditions.seconds_each,
        runtime=runtime_facts(device, conditions.speed),
        memory=conditions.memory,
        peak_vram_bytes=max(peaks, default=None),
        peak_rss_bytes=peak_rss_bytes(),
        predicted_peak_bytes=conditions.predicted_peak_bytes,
        stage_peaks=conditions.stage_peaks,
        prompt_tokens=tokens,
        lora_matches=conditions.lora_matches,
        flagged=flagged,
    )
