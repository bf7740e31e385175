"""Textual inversions: a token that means something, and nothing of it left afterwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from adapter_files import write_tensors
from direct_calls import pictures

from pipeline.adapters.apply import apply, text_encoder_key
from pipeline.adapters.specs import EmbeddingSpec
from pipeline.adapters.textual_inversion import identify_embedding
from pipeline.errors import JobFailure, ModelError
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.request import NO_ADAPTERS, Adapters


def vectors(count: int, width: int = 32, seed: int = 0) -> object:
    import torch

    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def with_embeddings(model: LoadedModel, *pairs: tuple[Path, str]) -> Adapters:
    found = (identify_embedding(EmbeddingSpec(path, token), model.files) for path, token in pairs)
    return Adapters(embeddings=tuple(found))


def write_embedding(path: Path, count: int = 1, width: int = 32, seed: int = 0) -> Path:
    return write_tensors(path, **{"<cat>": vectors(count, width, seed)})


def test_a_token_means_what_was_learned_and_leaves_no_trace(sd: LoadedModel, tmp_path: Path) -> None:
    adapters = with_embeddings(sd, (write_embedding(tmp_path / "cat.safetensors"), "<cat>"))
    plain, other = pictures(sd, prompt="a <cat>"), pictures(sd)
    tokenizer, table = sd.pipe.tokenizer, sd.pipe.text_encoder.get_input_embeddings()
    learned = pictures(sd, adapters, prompt="a <cat>")
    assert np.abs(learned - plain).max() > 1e-3
    np.testing.assert_array_equal(pictures(sd, adapters), other)  # prompts without the token are as before
    np.testing.assert_array_equal(pictures(sd, prompt="a <cat>"), plain)
    assert sd.pipe.tokenizer is tokenizer and sd.pipe.text_encoder.get_input_embeddings() is table


def test_the_same_picture_as_plain_diffusers(
    sd: LoadedModel, load_tiny: Callable[..., LoadedModel], tmp_path: Path
) -> None:
    path = write_embedding(tmp_path / "cat.safetensors", count=3)
    ours = pictures(sd, with_embeddings(sd, (path, "<cat>")), prompt="a <cat> there")
    plain = load_tiny("sd15")
    plain.pipe.load_textual_inversion(str(path), token="<cat>")
    plain.pipe.text_encoder.requires_grad_(False)
    np.testing.assert_array_equal(pictures(plain, prompt="a <cat> there"), ours)


def test_two_embeddings_and_then_another(sd: LoadedModel, tmp_path: Path) -> None:
    cat = write_embedding(tmp_path / "cat.safetensors")
    dog = write_embedding(tmp_path / "dog.safetensors", count=2, seed=1)
    prompt = "<cat> and <dog>"
    both = pictures(sd, with_embeddings(sd, (cat, "<cat>"), (dog, "<dog>")), prompt=prompt)
    alone = pictures(sd, with_embeddings(sd, (cat, "<cat>")), prompt=prompt)
    swapped = pictures(sd, with_embeddings(sd, (dog, "<cat>"), (cat, "<dog>")), prompt=prompt)
    assert np.abs(both - alone).max() > 1e-3 and np.abs(both - swapped).max() > 1e-3
    again = with_embeddings(sd, (cat, "<cat>"), (dog, "<dog>"))
    np.testing.assert_array_equal(pictures(sd, again, prompt=prompt), both)


def test_sdxl_learns_in_both_text_encoders(load_tiny: Callable[..., LoadedModel], tmp_path: Path) -> None:
    model = load_tiny("sdxl")
    path = write_tensors(tmp_path / "xl.safetensors", clip_l=vectors(1), clip_g=vectors(1, seed=1))
    base = pictures(model, prompt="a <cat>")
    tables = [len(encoder.get_input_embeddings().weight) for encoder in _encoders(model)]
    learned = pictures(model, with_embeddings(model, (path, "<cat>")), prompt="a <cat>")
    assert [len(encoder.get_input_embeddings().weight) for encoder in _encoders(model)] == [n + 1 for n in tables]
    assert np.abs(learned - base).max() > 1e-3
    np.testing.assert_array_equal(pictures(model, prompt="a <cat>"), base)


def _encoders(model: LoadedModel) -> list[object]:
    return [model.pipe.text_encoder, model.pipe.text_encoder_2]


def test_a_text_encoder_that_was_loaded_again_learns_again(sd: LoadedModel, tmp_path: Path) -> None:
    from pipeline.loading.load import load_component

    adapters = with_embeddings(sd, (write_embedding(tmp_path / "cat.safetensors"), "<cat>"))
    learned = pictures(sd, adapters, prompt="a <cat>")
    sd.pool.release(sd.pool.key_of(sd.pipe.text_encoder), keep=False)
    sd.pipe.text_encoder = None
    apply(sd, adapters)  # nobody to teach
    sd.pipe.text_encoder = load_component(sd, "text_encoder")
    np.testing.assert_array_equal(pictures(sd, adapters, prompt="a <cat>"), learned)


def test_embeddings_are_in_the_key_of_encoded_prompts(sd: LoadedModel, tmp_path: Path) -> None:
    path = write_embedding(tmp_path / "cat.safetensors")
    keys = {text_encoder_key(sd, with_embeddings(sd, (path, token))) for token in ("<cat>", "<dog>")}
    assert len(keys | {text_encoder_key(sd, NO_ADAPTERS)}) == 3


def test_what_does_not_fit_is_refused(sd: LoadedModel, load_tiny: Callable[..., LoadedModel], tmp_path: Path) -> None:
    wide = write_embedding(tmp_path / "wide.safetensors", width=48)
    of_xl = write_tensors(tmp_path / "xl.safetensors", clip_l=vectors(1), clip_g=vectors(1))
    cat = write_embedding(tmp_path / "cat.safetensors")
    with pytest.raises(ModelError, match="embedding wide: was made for a model of width 48, this one has 32"):
        with_embeddings(sd, (wide, "<cat>"))
    with pytest.raises(ModelError, match="embedding xl: was made for Stable Diffusion XL"):
        with_embeddings(sd, (of_xl, "<cat>"))
    with pytest.raises(ModelError, match="embedding cat: token 'two words' should be one word"):
        with_embeddings(sd, (cat, "two words"))
    with pytest.raises(ModelError, match=r"embedding cat.safetensors: diffusers has none for"):
        with_embeddings(load_tiny("sana"), (cat, "<cat>"))
    with pytest.raises(JobFailure, match="embedding token 'a</w>': the model knows this word already"):
        apply(sd, with_embeddings(sd, (cat, "a</w>")))


def test_an_embedding_that_vanished_after_planning_fails(sd: LoadedModel, tmp_path: Path) -> None:
    path = write_embedding(tmp_path / "cat.safetensors")
    adapters = with_embeddings(sd, (path, "<cat>"))
    path.unlink()
    with pytest.raises(JobFailure, match=r"embedding cat: cat.safetensors is gone"):
        apply(sd, adapters)
