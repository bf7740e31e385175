"""The id of a picture: a hash of everything that decides it."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pipeline.memory.planning.techniques import TECHNIQUES
from pipeline.request import NO_ADAPTERS, Adapters, ImageRequest, Likeness, MemorySettings, ModelSettings

if TYPE_CHECKING:
    from hashlib import _Hash

REQUEST_SCHEMA = 2
"""Raised only when the same settings would make another picture; old images are then made anew."""

_canonical = json.JSONEncoder(sort_keys=True, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode


def request_id(request: ImageRequest) -> str:
    """SHA-256 (hex) of everything that changes the picture; file names, folders and order do not count."""
    prompt = hash_prompt(hash_model(request.model, request.memory), request.prompt, request.negative_prompt)
    return hash_seed(hash_sampling(prompt, likeness_of(request), request.adapters), request.seed).hex()


def likeness_of(request: ImageRequest) -> Likeness:
    """The sampling of a request, which has fields of the same names."""
    return Likeness(*(getattr(request, name) for name in Likeness._fields))


# A plan hashes millions of jobs that differ in little, so the content is hashed from what varies least to
# what varies most, and each step goes on from a copy. What is hashed is four lines of text: three of
# canonical JSON, and the seed.


def hash_model(model: ModelSettings, memory: MemorySettings) -> _Hash:
    """The beginning of the ids of all jobs of one model with the same memory settings.

    Of the memory techniques those count that change pixels and were asked for, or forbidden, by name. What the plan
    chooses by itself, or recovery falls back to, does not: the same command on a fuller card must not make everything
    again.
    """
    content: dict[str, Any] = {
        "schema": REQUEST_SCHEMA,
        "model": model.sha256,
        "vae": model.vae_sha256,
        "dtype": memory.dtype,
        "vae_tiling": memory.uses("vae_tiling"),
    }
    lossy = sorted(name for name in memory.techniques if TECHNIQUES[name].lossy and name != "vae_tiling")
    others = {
        "techniques": lossy,
        # Where nothing lossy is wanted, a picture that was made with it does not count.
        "exact": memory.exact,
        "off": sorted(name for name in memory.off if TECHNIQUES[name].lossy),
        "tiny_vae": memory.tiny_vae_sha256 if "tiny_vae" in lossy else None,
        "config": model.config_sha256,
        "prediction_type": model.prediction_type,
        "max_sequence_length": model.max_sequence_length,
        "safety_checker": model.safety_checker,
    }
    return hashlib.sha256(_line(content | _set_ones(others)))


def hash_prompt(model_hash: _Hash, prompt: str, negative_prompt: str) -> _Hash:
    """Adds the texts."""
    digest = model_hash.copy()
    digest.update(_line({"prompt": prompt, "negative_prompt": negative_prompt}))
    return digest


def hash_sampling(prompt_hash: _Hash, likeness: Likeness, adapters: Adapters = NO_ADAPTERS) -> _Hash:
    """Adds how the image is sampled, and the adapters."""
    digest = prompt_hash.copy()
    digest.update(_sampling_line(likeness))
    if adapters:
        digest.update(_adapters_line(adapters))
    return digest


def hash_seed(sampling_hash: _Hash, seed: int) -> bytes:
    """Adds the seed: the 32 bytes of a job's id."""
    digest = sampling_hash.copy()
    digest.update(b"seed=%d" % seed)
    return digest.digest()


@lru_cache(maxsize=4096)
def _sampling_line(likeness: Likeness) -> bytes:
    # 7 and 7.0 are one guidance scale, and so are 0.0 and -0.0; adding 0.0 makes them one text.
    content = {**likeness._asdict(), "guidance_scale": float(likeness.guidance_scale) + 0.0}
    others = {key: content.pop(key) for key in ("scheduler_options", "step_cache")}
    return _line(content | _set_ones(others))


@lru_cache(maxsize=4096)
def _adapters_line(adapters: Adapters) -> bytes:
    """By content alone: names and places of files do not count, nor does the order of LoRAs, which are added up."""
    content = {
        "loras": sorted([lora.sha256, float(lora.weight)] for lora in adapters.loras),
        "embeddings": sorted([one.sha256, one.token] for one in adapters.embeddings),
        "controlnets": [
            [one.sha256, one.image.sha256, one.preprocess, float(one.strength), float(one.start), float(one.end)]
            for one in adapters.controlnets
        ],
        "ip_adapters": [
            [one.sha256, one.image.sha256, float(one.scale), one.encoder_sha256] for one in adapters.ip_adapters
        ],
        "init": adapters.init and [adapters.init.image.sha256, float(adapters.init.strength)],
    }
    return _line({"adapters": _set_ones(content)})


def _set_ones(content: dict[str, Any]) -> dict[str, Any]:
    """Without what is left open, so that a key that is new in Darkroom leaves the ids of older images as they are."""
    return {key: value for key, value in content.items() if value not in (None, False, (), [])}


def _line(content: dict[str, Any]) -> bytes:
    return _canonical(content).encode("ascii") + b"\n"
