"""What worked is remembered, as long as it says something about the memory there is."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.memory.planning.history import FallbackHistory, Situation, Worked, kinds
from pipeline.request import (
    NO_ADAPTERS,
    Adapters,
    ControlNetWeights,
    EmbeddingWeights,
    InitImage,
    IpAdapterWeights,
    LoraWeights,
    MemorySettings,
    ReferenceImage,
)

PLANNED = MemorySettings(dtype="bfloat16", budget_bytes=20 * 2**30)
HERE = Situation("make", "ab" * 32, PLANNED, 24 * 2**30, 1024, 1024, True, "loras 1")
WORKED = Worked(("staged", "vae_slicing"), 2, 4, 0.8)


def test_remembered_in_this_run_and_the_next(tmp_path: Path) -> None:
    first = FallbackHistory(tmp_path / "cache" / "memory.sqlite")
    assert first.recall(HERE) is None
    first.remember(HERE, WORKED)
    for experience in (first, FallbackHistory(tmp_path / "cache" / "memory.sqlite")):
        assert experience.recall(HERE) == WORKED
    without_smaller_batches = Worked(("vae_tiling",))
    first.remember(HERE, without_smaller_batches)
    assert FallbackHistory(tmp_path / "cache" / "memory.sqlite").recall(HERE) == without_smaller_batches


@pytest.mark.parametrize(
    "change",
    [
        {"stage": "encode"},
        {"model_sha256": "cd" * 32},
        {"width": 512},
        {"height": 512},
        {"guided": False},
        {"adapters": "loras 2"},
        {"memory": replace(PLANNED, dtype="float16")},
        {"memory": replace(PLANNED, techniques=("denoiser_int8",))},
        {"memory": replace(PLANNED, exact=True)},
        {"memory": replace(PLANNED, off=("staged",))},
        {"memory": replace(PLANNED, tiny_vae_sha256="ef" * 32)},
    ],
)
def test_another_situation_is_another_matter(change: dict[str, Any], tmp_path: Path) -> None:
    experience = FallbackHistory(tmp_path / "memory.sqlite")
    experience.remember(HERE, WORKED)
    assert experience.recall(replace(HERE, **change)) is None
    assert experience.recall(HERE) is not None


@pytest.mark.parametrize(
    "change",
    [
        {"device_bytes": 25 * 2**30},
        {"memory": replace(PLANNED, budget_bytes=19 * 2**30)},
        {"memory": replace(PLANNED, budget_bytes=21 * 2**30)},
        {"memory": replace(PLANNED, level="balanced")},
    ],
)
def test_about_as_much_memory_is_the_same(change: dict[str, Any], tmp_path: Path) -> None:
    """Without a budget of the user's, what is free at the moment is the budget."""
    FallbackHistory(tmp_path / "memory.sqlite").remember(HERE, WORKED)
    assert FallbackHistory(tmp_path / "memory.sqlite").recall(replace(HERE, **change)) == WORKED


@pytest.mark.parametrize(
    "change",
    [
        {"device_bytes": 8 * 2**30},
        {"device_bytes": 80 * 2**30},
        {"memory": replace(PLANNED, budget_bytes=17 * 2**30)},
        {"memory": replace(PLANNED, budget_bytes=23 * 2**30)},
        {"memory": replace(PLANNED, budget_bytes=None)},
    ],
)
def test_forgotten_when_the_memory_is_another(change: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "memory.sqlite"
    FallbackHistory(path).remember(HERE, WORKED)
    assert FallbackHistory(path).recall(replace(HERE, **change)) is None
    assert FallbackHistory(path).recall(HERE) is None


def test_of_adapters_only_kind_and_number_are_kept() -> None:
    picture = ReferenceImage("portrait", "/home/me/portrait.png", "12" * 32)
    adapters = Adapters(
        loras=(LoraWeights("secret", "/home/me/secret.safetensors", "34" * 32, 0.8),) * 2,
        embeddings=(EmbeddingWeights("word", "/home/me/word.safetensors", "56" * 32, "<word>"),),
        controlnets=(ControlNetWeights("edges", "/home/me/edges", "78" * 32, picture),),
        ip_adapters=(IpAdapterWeights("face", "/home/me/face.safetensors", "9a" * 32, picture),),
        init=InitImage(picture),
    )
    assert kinds(adapters) == "loras 2, controlnets 1, ip_adapters 1, init 1"
    assert kinds(NO_ADAPTERS) == kinds(Adapters(embeddings=adapters.embeddings)) == ""


def test_a_damaged_file_costs_nothing_but_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "memory.sqlite"
    path.write_bytes(b"no database" * 1000)
    experience = FallbackHistory(path)
    assert experience.recall(HERE) is None
    experience.remember(HERE, WORKED)
    assert experience.recall(HERE) == WORKED
    assert FallbackHistory(path).recall(HERE) == WORKED, "in a new file, instead of the damaged one"


def test_a_folder_that_cannot_be_made_neither(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    experience = FallbackHistory(tmp_path / "file" / "memory.sqlite")
    experience.remember(HERE, WORKED)
    assert experience.recall(HERE) == WORKED
    experience.forget(HERE)
    assert experience.recall(HERE) is None


def test_techniques_of_another_version_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "memory.sqlite"
    FallbackHistory(path).remember(HERE, WORKED)
    _change(path, """worked = '[["staged", "levitation"], 2, null]'""")
    assert FallbackHistory(path).recall(HERE) == Worked(("staged",), 2)


@pytest.mark.parametrize(
    "change", ["worked = 'x'", "worked = '[1]'", "worked = '[[], 0, null]'", "room = '7'", "worked = '[[], \"a\", 1]'"]
)
def test_what_makes_no_sense_is_forgotten(change: str, tmp_path: Path) -> None:
    path = tmp_path / "memory.sqlite"
    FallbackHistory(path).remember(HERE, WORKED)
    _change(path, change)
    assert FallbackHistory(path).recall(HERE) is None
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM situations").fetchone() == (0,)


def _change(path: Path, what: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE situations SET {what}")
