"""Prompt weights and long prompts for models whose text encoders are CLIP."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_tokenizers import CLIP_TOKENS

from pipeline.generation.encode import encode
from pipeline.generation.generate import generate_batch
from pipeline.generation.long_prompts import parse_weights, takes_weights
from pipeline.loading.load import load
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.registry.model_settings import identify
from pipeline.request import GeneratedImage, ImageRequest, MemorySettings

CHUNK = CLIP_TOKENS
FIRST, SECOND = "a red house in hills at sunset,", "with a blue boat and a car"


@functools.cache
def loaded(folder: Path) -> LoadedModel:
    return load(identify(str(folder))[0], MemorySettings(), "cpu")


@pytest.fixture(params=["sd15", "sdxl"])
def model(tiny: Callable[[str], Path], request: pytest.FixtureRequest) -> LoadedModel:
    return loaded(tiny(request.param))


def request_for(model: LoadedModel, prompt: str, **values: Any) -> ImageRequest:
    return tiny_requests.request_for(
        model, prompt, **{"negative_prompt": "", "steps": 2, "scheduler": "Euler", **values}
    )


def embeddings(model: LoadedModel, prompt: str, **values: Any) -> Any:
    """Token embeddings (tokens, width) of a prompt."""
    positive = encode(model, request_for(model, prompt, **values)).positive
    assert positive is not None
    return positive.tensors["prompt_embeds"][0]


def plain_embeddings(model: LoadedModel, prompt: str, **options: Any) -> Any:
    import torch

    with torch.inference_mode():
        return model.pipe.encode_prompt(
            prompt, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False, **options
        )[0][0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # The examples in A1111's parse_prompt_attention.
        ("normal text", [("normal text", 1.0)]),
        ("an (important) word", [("an ", 1.0), ("important", 1.1), (" word", 1.0)]),
        ("(unbalanced", [("unbalanced", 1.1)]),
        (r"\(literal\]", [("(literal]", 1.0)]),
        ("(unnecessary)(parens)", [("unnecessaryparens", 1.1)]),
        (
            "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
            [
                ("a ", 1.0),
                ("house", 1.5730000000000004),
                (" ", 1.1),
                ("on", 1.0),
                (" a ", 1.1),
                ("hill", 0.55),
                (", sun, ", 1.1),
                ("sky", 1.4641000000000006),
                (".", 1.1),
            ],
        ),
        ("", []),
        ("a: b) c]", [("a: b) c]", 1.0)]),
    ],
)
def test_weights_are_read_as_a1111_reads_them(text: str, expected: list[tuple[str, float]]) -> None:
    assert list(parse_weights(text)) == expected


def test_a_prompt_without_weights_takes_the_plain_way(model: LoadedModel) -> None:
    import torch

    plain = plain_embeddings(model, "a red house")
    assert torch.equal(embeddings(model, "a red house"), plain)
    assert torch.equal(embeddings(model, "a (red:1.0) house"), plain)
    assert torch.equal(embeddings(model, r"a \(red\) house"), plain_embeddings(model, "a (red) house"))


@pytest.mark.parametrize("clip_skip", [None, 1])
def test_a_weight_moves_its_words_away_from_the_empty_prompt(model: LoadedModel, clip_skip: int | None) -> None:
    import torch

    plain = plain_embeddings(model, "red house", clip_skip=clip_skip)
    empty = plain_embeddings(model, "", clip_skip=clip_skip)
    weighed = embeddings(model, "red (house:1.3)", clip_skip=clip_skip)
    words = slice(1 + len("red"), 1 + len("redhouse"))  # a token per letter, after the one that begins
    expected = plain.clone()
    expected[words] = empty[words] + 1.3 * (plain[words] - empty[words])
    torch.testing.assert_close(weighed, expected, atol=1e-4, rtol=1e-4)
    assert (weighed[words] - plain[words]).abs().max() > 1e-2


def test_less_weight_is_between_the_prompt_and_the_one_without_the_words(model: LoadedModel) -> None:
    import torch

    plain, less, least = (embeddings(model, text) for text in ("red house", "red (house:0.7)", "red (house:0.1)"))
    distances = [(one - plain).norm() for one in (less, least)]
    assert 0 < distances[0] < distances[1] and all(torch.isfinite(one).all() for one in (less, least))


def test_a_long_prompt_is_encoded_in_chunks_that_end_where_phrases_end(model: LoadedModel) -> None:
    import torch

    both = embeddings(model, f"{FIRST} {SECOND}")
    assert both.shape[0] == 2 * CHUNK
    torch.testing.assert_close(both[:CHUNK], plain_embeddings(model, FIRST), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(both[CHUNK:], plain_embeddings(model, SECOND), atol=1e-4, rtol=1e-4)


def test_the_shorter_side_goes_on_with_empty_chunks(model: LoadedModel) -> None:
    import torch

    def sides(prompt: str, negative_prompt: str) -> tuple[Any, Any]:
        encoded = encode(model, request_for(model, prompt, negative_prompt=negative_prompt))
        assert encoded.positive is not None and encoded.negative is not None
        return encoded.positive.tensors["prompt_embeds"][0], encoded.negative.tensors["negative_prompt_embeds"][0]

    empty_negative = sides("cat", "")[1]
    long, negative = sides(f"{FIRST} {SECOND}", "fog")
    assert long.shape == negative.shape
    assert torch.equal(negative[:CHUNK], sides("cat", "fog")[1])
    assert torch.equal(negative[CHUNK:], empty_negative)
    short, long_negative = sides("cat", f"{FIRST} {SECOND}")
    assert short.shape == long_negative.shape
    assert torch.equal(short, torch.cat([plain_embeddings(model, "cat"), plain_embeddings(model, "")]))


def test_the_pooled_embedding_is_that_of_the_words(tiny: Callable[[str], Path]) -> None:
    import torch

    model = loaded(tiny("sdxl"))
    pooled = [encode(model, request_for(model, text)).positive for text in ("red house", "(red:1.4) house")]
    assert all(one is not None for one in pooled)
    assert torch.equal(*(one.tensors["pooled_prompt_embeds"] for one in pooled if one))


def test_what_comes_after_the_limit_counts(model: LoadedModel) -> None:
    longer, other, short = generate_batch(
        model, [request_for(model, text) for text in (f"{FIRST} {SECOND}", f"{FIRST} with a tree and a fence", FIRST)]
    )
    assert isinstance(longer, GeneratedImage) and isinstance(other, GeneratedImage)
    assert isinstance(short, GeneratedImage)
    assert not np.array_equal(longer.pixels, other.pixels) and not np.array_equal(longer.pixels, short.pixels)
    count = len((FIRST + SECOND).replace(" ", ""))
    assert [(one.tokens, one.truncated) for one in longer.prompt_tokens] == [(count, 0)] * len(longer.prompt_tokens)


def test_in_other_families_brackets_are_text(tiny: Callable[[str], Path]) -> None:
    assert not any(takes_weights(loaded(tiny(family)).pipe) for family in ("sd3", "flux", "pixart_sigma"))


@pytest.fixture
def padded_with_a_sign(tiny: Callable[[str], Path]) -> Iterator[LoadedModel]:
    """A model whose tokenizer pads with a sign that occurs in prompts, as SDXL's second one does."""
    model = loaded(tiny("sd15"))
    usual, model.pipe.tokenizer.pad_token = model.pipe.tokenizer.pad_token, "!"
    yield model
    model.pipe.tokenizer.pad_token = usual


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(alphabet="ab !,.()[]:\\12", max_size=90))
def test_any_text_can_be_encoded(padded_with_a_sign: LoadedModel, text: str) -> None:
    import torch

    encoded = encode(padded_with_a_sign, request_for(padded_with_a_sign, text, negative_prompt=text[::-1]))
    assert encoded.positive is not None and encoded.negative is not None
    for name, side in (("prompt_embeds", encoded.positive), ("negative_prompt_embeds", encoded.negative)):
        assert torch.isfinite(side.tensors[name]).all()
