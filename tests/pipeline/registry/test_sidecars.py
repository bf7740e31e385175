"""Notes of other programs: read where they are sound, passed over where they are not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from published_weights import write_header
from small_weights import write_lora, write_sidecar

from pipeline.registry.database import Registry
from pipeline.registry.hints import Hints
from pipeline.registry.queries import list_models
from pipeline.registry.records import ModelCard
from pipeline.registry.scanning import scan
from pipeline.registry.sidecars import MAX_BYTES, read_hints, sidecars_of

VERSION: dict[str, Any] = {
    "id": 22,
    "modelId": 11,
    "name": "v1.0",
    "baseModel": "SDXL 1.0",
    "trainedWords": ["styled, by hand", "ink"],
    "model": {"name": "Ink", "type": "LORA"},
    "files": [{"name": "ink.safetensors", "hashes": {"AutoV2": "ABABABABAB", "SHA256": "AB" * 32}}],
    "description": "<p>Soft <b>ink</b>. Steps: 25-30</p><script>steal()</script>",
    "stats": {"downloadCount": 1234, "thumbsUpCount": 56},
    "images": [
        {"url": "https://image.example/1.png",
         "meta": {"prompt": "ink, a heron", "cfgScale": 6.5, "sampler": "Euler a", "seed": 5}},
        {"meta": {"id": 3, "meta": {"prompt": "ink, a heron", "steps": 28, "cfgScale": 5.5}}},
        {"meta": None},
    ],
}  # fmt: skip

CARD = ModelCard(
    title="Ink",
    description="Soft ink. Steps: 25-30",
    base_model="SDXL 1.0",
    trigger_words=("styled, by hand", "ink"),
    example_prompts=("ink, a heron",),
    downloads=1234,
    thumbs_up=56,
)
SAID = {"steps": "25 to 30", "guidance_scale": "6", "sampler": "Euler a"}

SOUND: dict[str, tuple[str, dict[str, Any], Hints]] = {
    "Civitai Helper": (".civitai.info", VERSION, Hints(CARD, SAID, "ab" * 32, 22, 11)),
    "LoRA Manager": (
        ".metadata.json",
        {"file_name": "ink", "model_name": "My ink", "sha256": "cd" * 32, "base_model": "Pony",
         "tags": ["ink", "style"], "civitai": VERSION, "file_path": "/home/somebody/ink.safetensors",
         "preview_nsfw_level": 0, "notes": "best at night, CFG 4",
         "usage_tips": '{"strength": 0.8, "strength_min": 0.6, "strength_max": 1.0, "clip_skip": 2}'},
        Hints(
            replace(CARD, title="My ink", description="best at night, CFG 4", base_model="Pony", tags=("ink", "style"),
                    weight=0.8, weight_min=0.6, weight_max=1.0),
            {**SAID, "guidance_scale": "4", "clip_skip": "2"}, "cd" * 32, 22, 11,
        ),
    ),
    "Stability Matrix": (
        ".cm-info.json",
        {"ModelId": 11, "ModelName": "Ink", "ModelDescription": "<p>ink, <i>soft</i></p>", "Nsfw": False,
         "Tags": ["style"], "ModelType": "LORA", "VersionId": 22, "VersionName": "v1.0", "BaseModel": "SDXL 1.0",
         "Hashes": {"SHA256": "AB" * 32, "AutoV2": "ABABABABAB"}, "TrainedWords": ["ink"],
         "Stats": {"downloadCount": 7, "ratingCount": 3}},
        Hints(
            ModelCard("Ink", "ink, soft", "SDXL 1.0", tags=("style",), trigger_words=("ink",), downloads=7),
            {}, "ab" * 32, 22, 11,
        ),
    ),
    "A1111": (
        ".json",
        {"description": "", "sd version": "SDXL", "activation text": "styled, by hand, ", "preferred weight": 0.8,
         "negative text": "photo, 3d", "notes": "with clip skip: 2", "modelId": 11, "modelVersionId": 22,
         "sha256": "AB" * 32},
        Hints(
            ModelCard(description="with clip skip: 2", base_model="SDXL", trigger_words=("styled", "by hand"),
                      negative_words=("photo", "3d"), weight=0.8),
            {"clip_skip": "2"}, "ab" * 32, 22, 11,
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("program", SOUND)
def test_notes_of_every_program_are_understood(program: str, tmp_path: Path) -> None:
    ending, value, expected = SOUND[program]
    path = write_sidecar(tmp_path / "ink.safetensors", ending, value)
    assert path.name in sidecars_of("ink.safetensors")
    assert read_hints([path]) == expected


HOSTILE: dict[str, bytes] = {
    "no JSON": b"<html>",
    "cut off": b'{"id": 1',
    "not UTF-8": b'{"id": "\xff"}',
    "list": b"[1, 2]",
    "number": b"1",
    "empty": b"",
    "deep": b'{"model":' * 100_000,
    "too large": b'{"id": 22, "x": "' + b"a" * MAX_BYTES + b'"}',
    "long number": b'{"id": ' + b"9" * 5_000 + b"}",
    "other types": json.dumps(
        {"id": "22", "modelId": True, "trainedWords": {"a": 1}, "baseModel": ["x"], "model": 3, "files": {"a": 1}}
    ).encode(),
    "negative": b'{"id": -5, "modelId": 99999999999999999999}',
    "no hash": b'{"files": [{"hashes": {"SHA256": "../../x"}}, {"hashes": 3}, 4]}',
}


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("ending", [".civitai.info", ".metadata.json", ".cm-info.json", ".json"])
def test_malformed_notes_are_passed_over(case: str, ending: str, registry: Registry, tmp_path: Path) -> None:
    path = write_lora(tmp_path / "loras" / "ink.safetensors")
    path.with_name(f"ink{ending}").write_bytes(HOSTILE[case])
    report = scan(registry, path.parent)
    assert report.found == 1 and report.refused == []
    (model,) = list_models(registry)
    assert (model.version_id, model.model_id, model.trigger_words, model.base_model) == (None, None, (), None)


def test_hostile_texts_are_cut_and_cleaned(tmp_path: Path) -> None:
    value = {
        "trainedWords": ["a\x1b[2Jb\u202ec", "x" * 5_000, "", 5, None, *(f"word{n}" for n in range(1_000))],
        "baseModel": "SD\n1.5\0",
        "model": {"name": "'; DROP TABLE models; --"},
    }
    hints = read_hints([write_sidecar(tmp_path / "ink.safetensors", ".civitai.info", value)])
    card = hints.card
    assert card.base_model == "SD 1.5" and card.title == "'; DROP TABLE models; --"
    assert card.trigger_words[:2] == ("a [2Jb c", "x" * 200) and len(card.trigger_words) == 100
    assert all(word.isprintable() for word in card.trigger_words)


def test_hostile_title_does_no_harm_to_the_registry(registry: Registry, tmp_path: Path) -> None:
    path = write_lora(tmp_path / "loras" / "ink.safetensors")
    write_sidecar(path, ".civitai.info", {"model": {"name": "'); DROP TABLE models; --"}, "trainedWords": ["\ud800"]})
    scan(registry, path.parent)
    (model,) = list_models(registry)
    assert "'); DROP TABLE models; --" in model.tags


def test_first_of_several_notes_wins_and_the_others_fill_gaps(tmp_path: Path) -> None:
    model = tmp_path / "ink.safetensors"
    first = write_sidecar(model, ".civitai.info", {"id": 22, "baseModel": "SDXL 1.0"})
    second = write_sidecar(model, ".json", {"modelVersionId": 33, "modelId": 44, "activation text": "ink"})
    assert read_hints([first, second]) == Hints(
        ModelCard(base_model="SDXL 1.0", trigger_words=("ink",)), {}, None, 22, 44
    )


def test_notes_of_other_files_are_not_taken(registry: Registry, tmp_path: Path) -> None:
    path = write_lora(tmp_path / "loras" / "ink.safetensors")
    write_sidecar(path.with_name("ink2.safetensors"), ".civitai.info", {"id": 5})
    (path.parent / "config.json").write_text('{"modelVersionId": 6}')
    scan(registry, path.parent)
    assert [model.version_id for model in list_models(registry)] == [None]


def write_unclear_lora(path: Path, key: str) -> Path:
    """A LoRA whose names and shapes fit several families, or tell none."""
    path.parent.mkdir()
    return write_header(path, {f"{key}.lora_down.weight": (4, 640), f"{key}.lora_up.weight": (640, 4)})


@pytest.mark.parametrize(
    ("key", "base", "family"),
    [
        ("lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_k", "SDXL 1.0", "sdxl"),
        ("lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_k", "Flux.1 D", None),
        ("lora_te_text_model_encoder_layers_0_self_attn_q_proj", "SD 1.5", "sd15"),
        ("lora_te_text_model_encoder_layers_0_self_attn_q_proj", "Wan Video", None),
    ],
)
def test_a_card_says_the_family_where_the_header_tells_none(
    key: str, base: str, family: str | None, home: Path, tmp_path: Path
) -> None:
    lora = write_unclear_lora(tmp_path / "models" / "ink.safetensors", key)
    write_sidecar(lora, ".civitai.info", {**VERSION, "baseModel": base})
    sure = write_lora(tmp_path / "models" / "sure.safetensors", "sdxl")
    write_sidecar(sure, ".civitai.info", {**VERSION, "baseModel": "SD 1.5"})
    with Registry() as registry:
        scan(registry, tmp_path / "models")
        found = {model.name: model.family for model in list_models(registry)}
    assert found == {"ink": family, "sure": "sdxl"}
