"""LoRA tags: read with their weights and places, and the prompt left clean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.prompting.lora_tags import blanked, lora_tags, without_tags
from pipeline.ranges import WEIGHT


def test_name_weight_and_place() -> None:
    prompt = "a fox, <lora:ink wash v2:0.8>, snow"
    (tag,) = lora_tags(prompt)
    assert (tag.name, tag.weight, tag.fault) == ("ink wash v2", 0.8, "")
    assert prompt[tag.start : tag.end] == "<lora:ink wash v2:0.8>"


def test_a_tag_may_say_no_weight() -> None:
    (tag,) = lora_tags("<lora:ink>")
    assert (tag.weight, tag.fault) == (None, "")


def test_lycoris_is_read_alike_in_any_case() -> None:
    assert [(tag.name, tag.weight) for tag in lora_tags("<lyco:ink:-1> <LoRA:snow:0>")] == [("ink", -1.0), ("snow", 0)]


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("a fox, <lora:ink:0.8>, snow", "a fox, snow"),
        ("a fox <lora:ink:0.8> in snow", "a fox in snow"),
        ("a fox<lora:ink:0.8>", "a fox"),
        ("a fox, <lora:ink:0.8>", "a fox"),
        ("a fox, <lora:ink:0.8> <lora:snow>", "a fox"),
        ("<lora:ink:0.8>, a fox", "a fox"),
        ("<lora:ink:0.8> a fox.<lora:snow:1>", "a fox."),
        ("a fox <lora:ink:0.8>, snow", "a fox, snow"),
        ("(a fox <lora:ink:0.8>), snow", "(a fox), snow"),
        ("a fox\n<lora:ink:0.8>\nsnow", "a fox\n\nsnow"),
        ("a  fox,, snow , <lora:ink:0.8>, rain", "a  fox,, snow , rain"),
        ("<lora:ink:0.8>", ""),
    ],
)
def test_only_the_commas_and_blanks_of_a_tag_go_with_it(prompt: str, text: str) -> None:
    assert without_tags(prompt, lora_tags(prompt)) == text


@pytest.mark.parametrize(
    "prompt", ["a < b, <em>", "a fox <lora:>", "a fox <lora: :1>", "a fox <lora:ink", "lora:ink:1"]
)
def test_what_is_no_tag_is_text(prompt: str) -> None:
    assert lora_tags(prompt) == ()


def test_some_tags_may_stay() -> None:
    prompt = "a fox, <lora:ink:0.8>, <lora:unknown:1>"
    known = [tag for tag in lora_tags(prompt) if tag.name == "ink"]
    assert without_tags(prompt, known) == "a fox, <lora:unknown:1>"


@pytest.mark.parametrize("weight", ["11", "-10.5", "nan", "inf", "strong", ""])
def test_a_weight_out_of_range_is_told_in_one_line(weight: str) -> None:
    (tag,) = lora_tags(f"a fox, <lora:ink:{weight}>")
    assert tag.weight is None
    assert tag.fault == f"<lora:ink:{weight}>: its weight must be a number from -10 to 10"


def test_several_weights_are_told_unless_they_are_one() -> None:
    assert "several weights" in lora_tags("a fox <lora:ink:0.8:0.5:lbw=OUTD>")[0].fault
    assert lora_tags("a fox <lora:ink:0.8:0.8>")[0].weight == 0.8


def test_a_thousand_tags_are_text() -> None:
    assert len(lora_tags("<lora:ink:1>" * 1000)) == 20


@given(
    st.lists(
        st.text("ab ,.()<>:lora\n", max_size=12)
        | st.sampled_from(["<lora:ink:0.8>", "<lora:snow>", "<lyco:x y:-2>", "<lora:bad:99>", "<lora:a:1:2>"]),
        max_size=8,
    ).map("".join)
)
def test_words_stay_and_weights_are_bounded(prompt: str) -> None:
    tags = lora_tags(prompt)
    assert all(tag.weight is None or WEIGHT.fault(tag.weight) is None for tag in tags)
    assert len(blanked(prompt, tags)) == len(prompt)
    rest, text = blanked(prompt, tags), without_tags(prompt, tags)
    assert "".join(rest.replace(",", "").split()) == "".join(text.replace(",", "").split())
    if not tags:
        assert text == prompt
