"""Reads what trainers wrote into a model's own header: kohya's `ss_*` and the `modelspec.*` of Stability AI."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.errors import ModelError
from pipeline.registry.card_fields import description, mapping, parse_json, sequence, tag_counts, text_of, words
from pipeline.registry.conventions import convention_of_base
from pipeline.registry.hints import Hints
from pipeline.registry.records import ModelCard, StoredKind
from pipeline.registry.settings_in_text import settings_in
from pipeline.storage.foreign_names import plain
from pipeline.weights.denoiser_detection import prediction_markers
from pipeline.weights.headers.read import read_weights

_LONGEST_TABLE = 4 * 2**20
"""Characters of a table of tags; those of large data sets have some hundred thousand."""


def header_hints(path: Path, kind: StoredKind) -> Hints:
    """The hints in the header of a file of weights; none of a folder, and of what cannot be read."""
    if not path.is_file():
        return Hints()
    try:
        header = read_weights(path)
    except ModelError:
        return Hints()
    said = header.metadata
    texts = text_of((said.get("modelspec.description"), said.get("modelspec.usage_hint")))
    card = ModelCard(
        title=plain(said.get("modelspec.title")) or plain(said.get("ss_output_name")),
        description=description(texts),
        base_model=_base(said) if kind == "lora" else "",
        licence=plain(said.get("modelspec.license")),
        tags=words(said.get("modelspec.tags")),
        trigger_words=words(said.get("modelspec.trigger_phrase")),
        tag_counts=tag_counts(_tables(said)) if kind == "lora" else (),
        v_prediction=prediction_markers(header.tensors, said)[0] == "v_prediction",
    )
    return Hints(card, settings_in(texts))


def _base(said: Mapping[str, str]) -> str:
    """The base that a LoRA was trained on: by the name of its file if that tells more than the architecture does.

    Pony, Illustrious and NoobAI all train as `sdxl_base_v1-0`.
    """
    file = plain(PurePosixPath(said.get("ss_sd_model_name", "")[:1_000].replace("\\", "/")).stem)
    return file if convention_of_base(file) else plain(said.get("ss_base_model_version"))


def _tables(said: Mapping[str, str]) -> Iterator[Any]:
    """The tables of tags; where data sets were configured by a file, each has its own."""

    def read(key: str) -> Any:
        text = said.get(key, "")
        return parse_json(text) if len(text) <= _LONGEST_TABLE else None

    yield read("ss_tag_frequency")
    for one in sequence(read("ss_datasets")):
        yield mapping(one).get("tag_frequency")
