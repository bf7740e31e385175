"""The A1111 text: its grammar, what is kept out of it, and that other programs read it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_texts import texts
from sd_parsers.parsers import AUTOMATIC1111Parser

from pipeline.metadata.infotext import plain_name, plain_number, readable, sampler_and_schedule, to_infotext
from pipeline.metadata.record import InitRecord, PictureRecord
from pipeline.request import LoraWeights

SHA = "31e35c80fc" + "0" * 54


def parse(text: str) -> Any:
    return AUTOMATIC1111Parser().parse({"parameters": text})


def test_the_whole_text(sample: Callable[..., Any]) -> None:
    made = sample(
        "a house, night",
        "bad: hands",
        scheduler="DPM++ 2M Karras",
        clip_skip=1,
        loras=(LoraWeights("my, LoRA", "", SHA, 0.8),),
    )
    assert to_infotext(made.record) == (
        "a house, night <lora:my_LoRA:0.8>\n"
        "Negative prompt: bad: hands\n"
        "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5, Seed: 965400086, Size: 40x24, "
        "Model: demo, VAE: vae.safetensors, Clip skip: 2, RNG: CPU, Version: darkroom 0.1.0, "
        'Hashes: {"lora:my_LoRA": "31e35c80fc"}'
    )


def test_without_prompt_the_lines_stay(sample: Callable[..., Any]) -> None:
    text = to_infotext(sample("a zebra", "fog").record, include_prompt=False)
    assert text.startswith("\nNegative prompt: \nSteps: 20, ")
    assert "zebra" not in text and "fog" not in text


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a sign: Negative prompt: none", "a sign: Negative prompt : none"),
        ("x\nSteps: to heaven", "x\nSteps : to heaven"),
        ("STEPS: 3, Seed: 4, cfg scale: 5", "STEPS : 3, Seed : 4, cfg scale : 5"),
        ("one\r\ntwo\rthree", "one\ntwo\nthree"),
        ("(masterpiece:1.2), key: value", "(masterpiece:1.2), key: value"),
    ],
)
def test_prompts_that_look_like_settings_are_neutralised(
    sample: Callable[..., Any], prompt: str, expected: str
) -> None:
    prompt_lines = to_infotext(sample(prompt, "").record).rpartition("\nNegative prompt: ")[0]
    assert prompt_lines == expected


def test_a_hash_list_is_last_and_a_model_hash_never_invented(sample: Callable[..., Any]) -> None:
    text = to_infotext(sample(loras=(LoraWeights("a", "", SHA, 1),)).record)
    assert json.loads(text.rpartition(", Hashes: ")[2]) == {"lora:a": SHA[:10]}
    assert "Model hash" not in text and "User" not in text


def test_names_lose_what_divides_settings(sample: Callable[..., Any]) -> None:
    made = sample(model='weird, "name": v1\nx')
    assert "Model: weird name v1 x, " in to_infotext(made.record)
    assert parse(to_infotext(made.record)).samplers[0].model.name == "weird name v1 x"
    assert plain_name(' a,b:"c" ') == "a b c"


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        ("Euler a", ("Euler a", None)),
        ("DPM++ 2M Karras", ("DPM++ 2M", "Karras")),
        ("DPM++ 2M SDE Exponential", ("DPM++ 2M SDE", "Exponential")),
        ("Karras", ("Karras", None)),
    ],
)
def test_samplers_are_divided_as_a1111_does(scheduler: str, expected: tuple[str, str | None]) -> None:
    assert sampler_and_schedule(scheduler) == expected


@pytest.mark.parametrize(
    ("number", "text"),
    [(7.0, "7"), (7.5, "7.5"), (0.0, "0"), (1.23456789, "1.23456789"), (1e21, "1" + "0" * 21)],
)
def test_numbers_are_written_the_short_way(number: float, text: str) -> None:
    assert plain_number(number) == text


def test_long_texts_are_cut_with_an_ellipsis() -> None:
    assert readable("abcdef", 4) == "abc…"
    assert readable("abcd", 4) == "abcd"
    assert readable("abcd", 0) == "…"


def test_a_file_has_a_hash_that_civitai_lists_it_by_and_a_folder_has_none(sample: Callable[..., Any]) -> None:
    folder = sample(loras=(LoraWeights("ink", "", SHA, 1),)).record
    assert "Model hash" not in to_infotext(folder) and '"model"' not in to_infotext(folder)
    file = folder.model_copy(update={"model": folder.model.model_copy(update={"single_file": True})})
    digits = file.model.sha256[:10]
    text = to_infotext(file)
    assert f", Model hash: {digits}, Model: demo," in text
    hashes = json.loads(text.partition(", Hashes: ")[2])
    assert hashes == {"model": digits, "lora:ink": SHA[:10]}
    model = parse(text).samplers[0].model
    assert (model.name, model.hash) == ("demo", digits)


def test_a_picture_that_was_started_from_says_how_much_of_it_was_left(sample: Callable[..., Any]) -> None:
    record = sample().record
    assert "Denoising strength" not in to_infotext(record)
    init = InitRecord(image=PictureRecord(name="a.png", sha256="0" * 64), strength=0.55)
    assert ", Denoising strength: 0.55," in to_infotext(record.model_copy(update={"init": init}))


@given(
    prompt=texts(120),
    negative_prompt=texts(60),
    model=texts(30, min_size=1),
    seed=st.integers(0, 2**53 - 1),
    steps=st.integers(1, 500),
    guidance_scale=st.floats(0, 100, allow_nan=False),
)
def test_sd_parsers_reads_whatever_we_write(
    sample: Callable[..., Any],
    prompt: str,
    negative_prompt: str,
    model: str,
    seed: int,
    steps: int,
    guidance_scale: float,
) -> None:
    made = sample(prompt, negative_prompt, model=model, seed=seed, steps=steps, guidance_scale=guidance_scale)
    text = to_infotext(made.record)
    info = parse(text)
    (sampler,) = info.samplers
    assert info.full_prompt == readable(prompt).strip()
    assert info.full_negative_prompt == readable(negative_prompt).strip()
    assert (sampler.name, info.metadata["Size"]) == ("Euler a", "40x24")
    assert int(sampler.parameters["seed"]) == seed
    assert int(sampler.parameters["steps"]) == steps
    assert float(sampler.parameters["cfg_scale"]) == guidance_scale
    assert text.count("\n") == 2 + readable(prompt).count("\n") + readable(negative_prompt).count("\n")
