"""The configurations and the vocabulary that are shipped: they describe the published models, to the last parameter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.weights.families import FAMILIES
from pipeline.weights.shipped import CLIP_VOCABULARY, SHIPPED, load_tokenizer


def index(family: str) -> dict[str, list[str]]:
    entries = json.loads((SHIPPED[family] / "model_index.json").read_text()).items()
    return {name: value for name, value in entries if isinstance(value, list) and value[0]}


def built(folder: Path, library: str, class_name: str) -> Any:
    import diffusers
    import transformers

    config = json.loads((folder / "config.json").read_text())
    with torch.device("meta"):
        if library == "diffusers":
            return getattr(diffusers, class_name).from_config(config)
        model_class = getattr(transformers, class_name)
        return model_class(model_class.config_class(**config))


@pytest.mark.parametrize("family", SHIPPED)
def test_components_have_the_published_numbers_of_parameters(family: str) -> None:
    for name, published in FAMILIES[family].parameters.items():
        module = built(SHIPPED[family] / name, *index(family)[name])
        assert sum(parameter.numel() for parameter in module.parameters()) == pytest.approx(published, abs=0.0005e9), (
            name
        )


@pytest.mark.parametrize("family", SHIPPED)
def test_everything_that_the_index_names_is_there(family: str) -> None:
    assert (
        json.loads((SHIPPED[family] / "model_index.json").read_text())["_class_name"] == FAMILIES[family].pipeline_class
    )
    for name in index(family):
        assert [path for path in (SHIPPED[family] / name).iterdir() if path.suffix == ".json"], name
    assert not list(SHIPPED[family].rglob("*.safetensors"))


def tokenizer(folder: str) -> Any:
    from transformers import CLIPTokenizer

    family, _, name = folder.partition("/")
    return load_tokenizer(CLIPTokenizer, SHIPPED[family] / name)


@pytest.mark.parametrize("folder", ["sd15/tokenizer", "sdxl/tokenizer", "sdxl/tokenizer_2"])
def test_prompts_become_the_known_ids_of_clip(folder: str) -> None:
    clip = tokenizer(folder)
    assert clip("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert clip("A  Photo\nof a CAT").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407], "lower case, one space"
    assert clip("").input_ids == [49406, 49407] and len(clip) == 49408 and clip.model_max_length == 77


def test_sdxl_fills_up_its_second_encoder_with_exclamation_marks() -> None:
    assert tokenizer("sdxl/tokenizer")("x", padding="max_length", max_length=5).input_ids[3:] == [49407] * 2
    second = tokenizer("sdxl/tokenizer_2")
    assert second("x", padding="max_length", max_length=5).input_ids[3:] == [0, 0] and second.decode([0]) == "!"


def test_every_word_of_the_vocabulary_has_its_merge() -> None:
    vocabulary = json.loads((CLIP_VOCABULARY / "vocab.json").read_text(encoding="utf-8"))
    merges = (CLIP_VOCABULARY / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]
    assert sorted(vocabulary.values()) == list(range(49408)) and len(merges) == 49408 - 2 - 512
    assert all(vocabulary[merge.replace(" ", "")] == 512 + rank for rank, merge in enumerate(merges))


def test_the_licence_lies_beside_the_vocabulary() -> None:
    text = (CLIP_VOCABULARY / "LICENSE").read_text()
    assert "MIT License" in text and "Copyright (c) 2021 OpenAI" in text


def test_a_tokenizer_with_its_own_vocabulary_keeps_it(tmp_path: Path) -> None:
    from tiny_tokenizers import write_clip
    from transformers import CLIPTokenizer

    write_clip(tmp_path)
    assert len(load_tokenizer(CLIPTokenizer, tmp_path)) == 190
