"""Pictures and records to write, and a parser of their files that shares no code with the program."""

from __future__ import annotations

import hashlib
import struct
import uuid
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from pipeline.metadata.building import build_record
from pipeline.metadata.encoding import EncodedImage, encode_image
from pipeline.metadata.metadata_settings import MetadataSettings
from pipeline.metadata.record import JobRecord, Record
from pipeline.request import Adapters, GeneratedImage, ImageRequest, LoraWeights, MemorySettings, ModelSettings

SHA = hashlib.sha256(b"weights").hexdigest()
CREATED = datetime(2025, 1, 11, 14, 30, 22, 123000, tzinfo=UTC)
RUNTIME = {
    "device": "cpu",
    "gpu": None,
    "attention_backend": "native",
    "cpu_threads": 2,
    "deterministic": True,
    "versions": {"python": "3.11.7", "torch": "2.14.1+cpu", "diffusers": "0.42.1"},
}
CONFIG = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "lambda_min_clipped": float("-inf"),
    "trained_betas": None,
    "_name_or_path": "/home/somebody/models/secret",
    "_use_default_values": ["beta_end"],
    "sizes": (1, 2.5),
}


@dataclass(frozen=True)
class Sample:
    """One picture with its record, ready to be written."""

    image: GeneratedImage
    record: Record
    settings: MetadataSettings

    def encode(self) -> EncodedImage:
        return encode_image(self.image.pixels, self.record, self.settings)


def picture(width: int = 40, height: int = 24) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A gradient with noise: what neither codec can store for nothing."""
    noise = np.random.default_rng(0).integers(0, 60, (height, width, 3))
    ramp = np.linspace(0, 190, width)[None, :, None]
    return (noise + ramp).astype(np.uint8)


def make_sample(
    prompt: str = "a red house, in hills",
    negative_prompt: str = "blurry",
    *,
    output_format: Any = "png",
    image_id: str | None = None,
    loras: tuple[LoraWeights, ...] = (),
    tags: tuple[str, ...] = (),
    name: str | None = "batch1",
    model: str = "demo",
    created: datetime = CREATED,
    profile: Any = "full",
    pixels: np.ndarray[Any, np.dtype[np.uint8]] | None = None,
    settings: dict[str, Any] | None = None,
    **request: Any,
) -> Sample:
    pixels = picture() if pixels is None else pixels
    values: dict[str, Any] = {
        "seed": 965400086,
        "steps": 20,
        "guidance_scale": 7.5,
        "scheduler": "Euler a",
        "clip_skip": None,
    }
    image = GeneratedImage(
        request=ImageRequest(
            prompt=prompt,
            negative_prompt=negative_prompt,
            width=pixels.shape[1],
            height=pixels.shape[0],
            model=ModelSettings(model, "/home/somebody/models/demo", SHA, "sd1", "vae.safetensors", SHA),
            memory=MemorySettings(),
            adapters=Adapters(loras=loras),
            **(values | request),
        ),
        pixels=pixels,
        pipeline_class="StableDiffusionPipeline",
        scheduler_class="EulerAncestralDiscreteScheduler",
        scheduler_config=CONFIG,
        noise_shape=(1, 4, 3, 5),
        noise_sha256=SHA,
        batch_size=4,
        batch_index=1,
        seconds=0.75,
        runtime=RUNTIME,
        memory=MemorySettings(),
        peak_rss_bytes=123456,
    )
    metadata = MetadataSettings(profile=profile, **(settings or {}))
    record = build_record(
        image,
        image_id=image_id or str(uuid.uuid4()),
        created=created,
        output_format=output_format,
        quality=metadata.quality_for(output_format),
        origin=JobRecord(id=SHA, run_id="20250111-x", name=name, tags=list(tags), prompt_index=3),
    )
    return Sample(image, record, metadata)


def file_parts(data: bytes) -> list[tuple[str, bytes]]:
    """Chunks of a PNG or WebP, segments of a JPEG, in order, as (kind, payload)."""
    if data.startswith(b"\x89PNG"):
        return list(_png_chunks(data))
    if data.startswith(b"RIFF"):
        return list(_webp_chunks(data))
    return list(_jpeg_segments(data))


def _png_chunks(data: bytes) -> Iterator[tuple[str, bytes]]:
    at = 8
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        payload = data[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", data, at + 8 + length)[0] == zlib.crc32(kind + payload)
        yield kind.decode(), payload
        at += 12 + length


def _webp_chunks(data: bytes) -> Iterator[tuple[str, bytes]]:
    at = 12
    while at < len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        yield kind.decode(), data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def _jpeg_segments(data: bytes) -> Iterator[tuple[str, bytes]]:
    at = 2
    while data[at + 1] != 0xDA:
        length = struct.unpack_from(">H", data, at + 2)[0]
        yield f"{data[at + 1]:02X}", data[at + 4 : at + 2 + length]
        at += 2 + length


@pytest.fixture(scope="session")
def sample() -> Callable[..., Sample]:
    """Makes a picture with its record; keyword arguments change what it says."""
    return make_sample


@pytest.fixture(scope="session")
def parts() -> Callable[[bytes], list[tuple[str, bytes]]]:
    """Splits finished bytes into chunks or segments."""
    return file_parts
