"""The name that a picture has by virtue of what it is: a hash of all that decides it."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.request import ImageRequest, MemorySettings, ModelSettings

if TYPE_CHECKING:
    from hashlib import _Hash

REQUEST_SCHEMA = 1
"""Raised only when the same settings would make another picture; old images are then made anew."""

_canonical = json.JSONEncoder(sort_keys=True, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode


class Likeness(NamedTuple):
    """The sampling of a job. Jobs that agree in all of it, and in the weights, can be made in one bundle."""

    steps: int
    guidance_scale: float
    width: int
    height: int
    scheduler: str
    clip_skip: int | None


def request_id(request: ImageRequest) -> str:
    """SHA-256 (hex) of all that changes the picture; file names, folders and order do not count."""
    likeness = Likeness(
        request.steps,
        request.guidance_scale,
        request.width,
        request.height,
        request.scheduler,
        request.clip_skip,
    )
    prompt = hash_prompt(hash_model(request.model, request.memory), request.prompt, request.negative_prompt)
    return hash_seed(hash_sampling(prompt, likeness), request.seed).hex()


# A plan hashes millions of jobs that differ in little, so the content is hashed from what varies least to
# what varies most, and each step goes on from a copy. What is hashed is four lines of text: three of
# canonical JSON, and the seed.


def hash_model(model: ModelSettings, memory: MemorySettings) -> _Hash:
    """The beginning of the ids of all jobs of one model, held in one way."""
    content = {
        "schema": REQUEST_SCHEMA,
        "model": model.sha256,
        "vae": model.vae_sha256,
        "dtype": memory.dtype,
        "vae_tiling": memory.vae_tiling,
    }
    return hashlib.sha256(_line(content))


def hash_prompt(model_hash: _Hash, prompt: str, negative_prompt: str) -> _Hash:
    """Goes on with the texts."""
    digest = model_hash.copy()
    digest.update(_line({"prompt": prompt, "negative_prompt": negative_prompt}))
    return digest


def hash_sampling(prompt_hash: _Hash, likeness: Likeness) -> _Hash:
    """Goes on with how the image is sampled."""
    digest = prompt_hash.copy()
    digest.update(_sampling_line(likeness))
    return digest


def hash_seed(sampling_hash: _Hash, seed: int) -> bytes:
    """Ends with the seed: the 32 bytes of a job's id."""
    digest = sampling_hash.copy()
    digest.update(b"seed=%d" % seed)
    return digest.digest()


@lru_cache(maxsize=4096)
def _sampling_line(likeness: Likeness) -> bytes:
    # 7 and 7.0 are one guidance scale, and so are 0.0 and -0.0; adding 0.0 makes them one text.
    return _line({**likeness._asdict(), "guidance_scale": float(likeness.guidance_scale) + 0.0})


def _line(content: dict[str, Any]) -> bytes:
    return _canonical(content).encode("ascii") + b"\n"
