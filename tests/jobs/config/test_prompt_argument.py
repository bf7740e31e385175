"""`prompt=TEXT`: whatever signs it has, Hydra reads that text; of a sweep, the prompts that a person sees."""

from __future__ import annotations

import random

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from jobs.config.composition import known_overrides
from jobs.config.prompt_argument import prompts_of_sweep

PIECES = [
    *(
        "a",
        "b c",
        " ",
        "\\",
        '"',
        "'",
        "$",
        "{",
        "}",
        "${",
        "${name}",
        "|",
        "=",
        ",",
        "(",
        ")",
        "[",
        "]",
        "ó",
        "#",
        "~",
    ),
    *("@", "\n", "\t", "%", "🦊", "null", ":", "//", "`", "*", "<lora:x:1>", "__w__"),
]


def read_by_hydra(override: str) -> object:
    """The text that a prompt set with `${prompt}` gets."""
    value = OverridesParser.create().parse_override(override).value()
    config = OmegaConf.create({"prompt": value, "prompts": {"lines": ["${prompt}"]}})
    return OmegaConf.to_container(config, resolve=True)["prompts"]["lines"][0]  # type: ignore[index,call-overload]


@pytest.mark.parametrize(
    "text",
    [
        "un faro en la tormenta, óleo",
        'a sign that says "no, never" = (a:1.2) [b]',
        "it's {red|blue} at 10:30",
        "a ${name} and ${",
        "42",
        "true",
        "[1, 2]",
        "ends in \\",
        "two\nlines\\\n",
    ],
)
def test_a_prompt_is_read_as_it_was_typed(text: str) -> None:
    prompt, chosen, *_ = known_overrides([f"prompt={text}"])
    assert read_by_hydra(prompt) == text and chosen == "prompts=prompt"


def test_no_signs_are_taken_for_hydras_own() -> None:
    draw = random.Random(4)
    for _ in range(300):
        text = "a" + "".join(draw.choices(PIECES, k=8))
        if "\\${" not in text and "${name}:" not in text and ":" not in text.partition("${")[2]:
            assert read_by_hydra(known_overrides([f"prompt={text}"])[0]) == text, text


def test_quotes_of_hydras_are_left_as_they_are() -> None:
    assert read_by_hydra(known_overrides(["prompt='a, \"b\"'"])[0]) == 'a, "b"'
    assert read_by_hydra(known_overrides(['prompt="OPEN" on a sign, "SHUT"'])[0]) == '"OPEN" on a sign, "SHUT"'


@pytest.mark.parametrize(
    ("text", "prompts"),
    [
        ("a boat,a house", ["a boat", "a house"]),
        ("a boat, oil", ["a boat, oil"]),
        ("a boat, oil,a house, ink", ["a boat, oil", "a house, ink"]),
        ("1,000 birds,2 cats", ["1,000 birds", "2 cats"]),
        ("{a,b|c} (d,e),f", ["{a,b|c} (d,e)", "f"]),
        ('"a,b","c,d"', ['"a,b"', '"c,d"']),
        ('a sign "x,y",b', ['a sign "x,y"', "b"]),
        ("a cat's toy,a dog's", ["a cat's toy", "a dog's"]),
        ("a boat,", ["a boat,"]),
    ],
)
def test_a_sweep_has_the_prompts_that_a_person_sees(text: str, prompts: list[str]) -> None:
    assert prompts_of_sweep(text) == prompts


def test_only_a_sweep_has_several() -> None:
    parse = OverridesParser.create().parse_override
    assert not parse(known_overrides(["prompt=a,b"])[0]).is_sweep_override()
    swept = parse(known_overrides(["-m", "prompt=a,b c"])[1])
    assert list(swept.sweep_string_iterator()) == ['"a"', '"b c"']


def test_a_set_on_the_command_line_replaces_the_prompt_of_a_file() -> None:
    assert known_overrides(["prompts=batch1"]) == ["prompts=batch1", "prompt=null"]
    assert known_overrides(["prompts={suffix: x}"]) == ["++prompts={suffix: x}"]
    assert known_overrides(["prompt=null"]) == ["prompt=null"]
