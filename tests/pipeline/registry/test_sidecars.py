"""Notes of other programs: read where they are sound, passed over where they are not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small_weights import write_lora, write_sidecar

from pipeline.registry.database import Registry
from pipeline.registry.queries import list_models
from pipeline.registry.scanning import scan
from pipeline.registry.sidecars import MAX_BYTES, Hints, read_hints, sidecars_of

VERSION: dict[str, Any] = {
    "id": 22,
    "modelId": 11,
    "name": "v1.0",
    "baseModel": "SDXL 1.0",
    "trainedWords": ["styled, by hand", "ink"],
    "model": {"name": "Ink", "type": "LORA"},
    "files": [{"name": "ink.safetensors", "hashes": {"AutoV2": "ABABABABAB", "SHA256": "AB" * 32}}],
}

SOUND: dict[str, tuple[str, dict[str, Any], Hints]] = {
    "Civitai Helper": (
        ".civitai.info",
        VERSION,
        Hints("Ink", "SDXL 1.0", ("styled, by hand", "ink"), (), "ab" * 32, 22, 11),
    ),
    "LoRA Manager": (
        ".metadata.json",
        {"file_name": "ink", "model_name": "My ink", "sha256": "cd" * 32, "base_model": "Pony",
         "tags": ["ink", "style"], "civitai": VERSION, "file_path": "/home/somebody/ink.safetensors",
         "preview_nsfw_level": 0},
        Hints("My ink", "Pony", ("styled, by hand", "ink"), ("ink", "style"), "cd" * 32, 22, 11),
    ),
    "Stability Matrix": (
        ".cm-info.json",
        {"ModelId": 11, "ModelName": "Ink", "ModelDescription": "<p>ink</p>", "Nsfw": False, "Tags": ["style"],
         "ModelType": "LORA", "VersionId": 22, "VersionName": "v1.0", "BaseModel": "SDXL 1.0",
         "Hashes": {"SHA256": "AB" * 32, "AutoV2": "ABABABABAB"}, "TrainedWords": ["ink"]},
        Hints("Ink", "SDXL 1.0", ("ink",), ("style",), "ab" * 32, 22, 11),
    ),
    "A1111": (
        ".json",
        {"description": "", "sd version": "SDXL", "activation text": "styled, by hand, ", "preferred weight": 0.8,
         "notes": "", "modelId": 11, "modelVersionId": 22, "sha256": "AB" * 32},
        Hints("", "SDXL", ("styled", "by hand"), (), "ab" * 32, 22, 11),
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
    assert hints.base_model == "SD 1.5" and hints.title == "'; DROP TABLE models; --"
    assert hints.trigger_words[:2] == ("a [2Jb c", "x" * 200) and len(hints.trigger_words) == 100
    assert all(word.isprintable() for word in hints.trigger_words)


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
    assert read_hints([first, second]) == Hints("", "SDXL 1.0", ("ink",), (), None, 22, 44)


def test_notes_of_other_files_are_not_taken(registry: Registry, tmp_path: Path) -> None:
    path = write_lora(tmp_path / "loras" / "ink.safetensors")
    write_sidecar(path.with_name("ink2.safetensors"), ".civitai.info", {"id": 5})
    (path.parent / "config.json").write_text('{"modelVersionId": 6}')
    scan(registry, path.parent)
    assert [model.version_id for model in list_models(registry)] == [None]
