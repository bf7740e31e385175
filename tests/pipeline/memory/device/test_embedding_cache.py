"""Embeddings that outlive the encoder that made them."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from pipeline.generation import encode as encoding
from pipeline.generation.encode import encode
from pipeline.generation.generate import generate_batch
from pipeline.loading.load import load
from pipeline.memory.device import embedding_cache
from pipeline.memory.device.embedding_cache import Embedding, EmbeddingCache
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.registry.model_settings import identify
from pipeline.request import GeneratedImage, ImageRequest, MemorySettings, PromptTokens

DROPPING = MemorySettings(techniques=("staged", "drop_encoders"))


def embedding(value: float = 1.0, rows: int = 4) -> Embedding:
    import torch

    tensors = {"prompt_embeds": torch.full((rows, 8), value), "mask": torch.ones(rows, dtype=torch.int64)}
    return Embedding(tensors, ragged=("prompt_embeds",), tokens=(PromptTokens("text_encoder", 3, 1),))


def same(one: Embedding | None, other: Embedding) -> bool:
    import torch

    return (
        one is not None
        and (one.ragged, one.tokens) == (other.ragged, other.tokens)
        and one.tensors.keys() == other.tensors.keys()
        and all(torch.equal(one.tensors[name], other.tensors[name]) for name in other.tensors)
        and all(one.tensors[name].dtype == other.tensors[name].dtype for name in other.tensors)
    )


def request_for(model: LoadedModel, prompt: str, **values: Any) -> ImageRequest:
    return ImageRequest(
        prompt=prompt,
        negative_prompt="fog",
        seed=1,
        steps=2,
        guidance_scale=5.0,
        width=32,
        height=32,
        scheduler="Euler",
        clip_skip=values.get("clip_skip"),
        model=model.settings,
        memory=model.memory,
    )


def cache_in(folder: Path) -> EmbeddingCache:
    cache = EmbeddingCache()
    cache._folder = folder
    return cache


def test_the_least_recently_used_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_cache, "MEMORY_BYTES", 2 * embedding().size_bytes)
    cache = cache_in(tmp_path)
    for key in ("a", "b"):
        cache.put(key, embedding())
    cache.get("a")
    cache.put("c", embedding())
    assert [cache.get(key) is not None for key in "abc"] == [True, False, True]
    cache.put("d", embedding(rows=100))
    assert len(cache._memory) == 1 and cache.get("d") is not None, "one that is too large by itself is kept for now"
    assert not any(tmp_path.iterdir()), "nothing was asked to be on disk"


def test_what_is_on_disk_is_found_by_the_next_process(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "embeddings"
    cache_in(folder).put("key", embedding(), on_disk=True)
    assert cache_in(folder).get("key") is None
    assert same(cache_in(folder).get("key", on_disk=True), embedding())
    (file,) = folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("content", [b"", b"\x08\0\0\0\0\0\0\0{}      ", b"junk" * 100, None])
def test_a_damaged_file_is_written_anew(tmp_path: Path, content: bytes | None) -> None:
    cache_in(tmp_path).put("key", embedding(), on_disk=True)
    file = tmp_path / "key.safetensors"
    file.write_bytes(file.read_bytes()[:-7] if content is None else content)
    fresh = cache_in(tmp_path)
    assert fresh.get("key", on_disk=True) is None
    fresh.put("key", embedding(), on_disk=True)
    assert same(cache_in(tmp_path).get("key", on_disk=True), embedding())


def test_the_folder_stays_within_its_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setattr(embedding_cache, "DISK_BYTES", 2000)
    cache = cache_in(tmp_path)
    for number, key in enumerate("abcdefgh"):
        cache.put(key, embedding(), on_disk=True)
        os.utime(tmp_path / f"{key}.safetensors", ns=(number, number))
    kept = sorted(file.stem for file in tmp_path.iterdir())
    assert 1 <= len(kept) < 8 and kept == list("abcdefgh")[-len(kept) :]
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 2000


def test_a_disk_that_cannot_be_written_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = cache_in(tmp_path / "file" / "embeddings")
    cache.put("key", embedding(), on_disk=True)
    assert same(cache.get("key"), embedding())


@pytest.mark.slow
def test_encoders_stay_away_when_every_text_is_known(tiny_sd: Path) -> None:
    settings = identify(str(tiny_sd))[0]
    for process in range(2):
        model = load(settings, DROPPING, "cpu")
        outcomes = generate_batch(model, [request_for(model, "a dog that was seen before")])
        assert isinstance(outcomes[0], GeneratedImage), outcomes
        tokens = outcomes[0].prompt_tokens
        assert [one.tokens for one in tokens] == [len("adogthatwasseenbefore")]
        assert ("encode" in outcomes[0].stage_peaks) == (process == 0)


def test_what_changes_an_embedding_changes_its_key(tiny_sd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = identify(str(tiny_sd))[0]
    model = load(settings, MemorySettings(), "cpu")
    encode(model, request_for(model, "a dog"))
    assert len(model.embeddings._memory) == 2, "prompt and negative prompt"
    encode(model, request_for(model, "a dog"))
    assert len(model.embeddings._memory) == 2
    encode(model, request_for(model, "a dog", clip_skip=1))
    assert len(model.embeddings._memory) == 4
    model.memory = MemorySettings(techniques=("encoder_int8",))
    encode(model, request_for(model, "a dog"))
    assert len(model.embeddings._memory) == 6
    model.memory = MemorySettings(techniques=("staged", "vae_tiling"))
    encode(model, request_for(model, "a dog"))
    assert len(model.embeddings._memory) == 6
    monkeypatch.setattr(encoding, "device_name", lambda kind: "another kind of card, with other last bits")
    encode(model, request_for(model, "a dog"))
    assert len(model.embeddings._memory) == 8
