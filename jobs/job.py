"""One picture to make, and where in a batch it comes from."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.request import ImageRequest
from pipeline.request_id import REQUEST_SCHEMA as JOB_SCHEMA
from pipeline.request_id import Likeness, hash_model, hash_prompt, hash_sampling, hash_seed
from pipeline.request_id import request_id as job_id

__all__ = [
    "JOB_SCHEMA",
    "Job",
    "Likeness",
    "hash_model",
    "hash_prompt",
    "hash_sampling",
    "hash_seed",
    "job_id",
]


@dataclass(frozen=True, slots=True)
class Job:
    """A request together with where it comes from; only the request decides `id`.

    `config_index` says which of the batch's composed configurations it belongs to (naming, metadata, output).
    `prompt_place` is what messages call the prompt, by what the user gave: `prompt 2 of colours`, `mine.txt:12`.
    """

    id: str
    request: ImageRequest
    config_index: int
    name: str
    prompt_set: str
    prompt_index: int
    prompt_template: str | None
    tags: tuple[str, ...]
    prompt_place: str = ""
