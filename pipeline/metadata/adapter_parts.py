"""The adapters of a request as parts of a record."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from pipeline.metadata.record import (
    ControlNetRecord,
    EmbeddingRecord,
    InitRecord,
    IpAdapterRecord,
    LoraRecord,
    PictureRecord,
)
from pipeline.request import Adapters, LoraMatch, ReferenceImage


def adapter_parts(adapters: Adapters, matches: Iterable[LoraMatch]) -> dict[str, Any]:
    """The record's fields `task`, `loras`, `embeddings`, `controlnets`, `ip_adapters` and `init`.

    `matches` says for each LoRA, by its hash, how many of its keys found a place.
    """
    by_hash = {match.sha256: match for match in matches}
    init = adapters.init
    return {
        "task": adapters.task,
        "loras": [
            LoraRecord(
                name=without_folders(one.name),
                sha256=one.sha256,
                weight=one.weight,
                matched=by_hash[one.sha256].matched if one.sha256 in by_hash else None,
                unmatched=by_hash[one.sha256].unmatched if one.sha256 in by_hash else None,
            )
            for one in adapters.loras
        ],
        "embeddings": [
            EmbeddingRecord(name=without_folders(one.name), sha256=one.sha256, token=one.token)
            for one in adapters.embeddings
        ],
        "controlnets": [
            ControlNetRecord(
                name=without_folders(one.name),
                sha256=one.sha256,
                image=_picture(one.image),
                preprocess=one.preprocess,
                strength=one.strength,
                start=one.start,
                end=one.end,
            )
            for one in adapters.controlnets
        ],
        "ip_adapters": [
            IpAdapterRecord(
                name=without_folders(one.name),
                sha256=one.sha256,
                image=_picture(one.image),
                scale=one.scale,
                encoder_sha256=one.encoder_sha256,
            )
            for one in adapters.ip_adapters
        ],
        "init": None if init is None else InitRecord(image=_picture(init.image), strength=init.strength),
    }


def without_folders(name: str) -> str:
    """The last part of a path, in either notation: folders tell where a person keeps things."""
    return re.split(r"[/\\]", name.rstrip("/\\"))[-1]


def _picture(image: ReferenceImage) -> PictureRecord:
    return PictureRecord(name=without_folders(image.name), sha256=image.sha256)
