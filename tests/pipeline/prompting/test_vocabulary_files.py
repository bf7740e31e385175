"""The vocabulary files: that ours are whole, and that a person's own add to them or are refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.prompting.analysis import AXES
from pipeline.prompting.rules import analyse
from pipeline.prompting.vocabulary_files import load_vocabulary


def test_every_value_of_every_axis_has_phrases_in_both_languages() -> None:
    said = {
        (sense.axis, sense.value, sense.language) for senses in load_vocabulary().phrases.values() for sense in senses
    }
    for axis, values in AXES.items():
        for value in values:
            assert (axis, value, "en") in said
            assert (axis, value, "es") in said
    assert {value for axis, value, _ in said if axis in AXES and value not in AXES[axis]} == set()


def test_there_are_thousands_of_phrases() -> None:
    languages = [sense.language for senses in load_vocabulary().phrases.values() for sense in senses]
    assert languages.count("en") > 5_000
    assert languages.count("es") > 5_000


def test_a_vocabulary_is_loaded_once(tmp_path: Path) -> None:
    assert load_vocabulary() is load_vocabulary()
    assert load_vocabulary(tmp_path) is load_vocabulary()
    assert load_vocabulary(tmp_path / "missing") is load_vocabulary()


def test_own_phrases_are_added_to_ours(tmp_path: Path) -> None:
    (tmp_path / "style.toml").write_text(
        "[cyberpunk]\nen = 'zorgcore; neon grime, neon-grime'\n\n[gothic]\nen_frame = 'crypty'\n", encoding="utf-8"
    )
    (tmp_path / "subject.toml").write_text("[animal]\nes = 'ciguapa, ciguapas'\n", encoding="utf-8")
    vocabulary = load_vocabulary(tmp_path)
    assert analyse("a market, zorgcore", vocabulary).style == ("cyberpunk",)
    assert analyse("a market in neon grime", vocabulary).style == ("cyberpunk",)
    assert analyse("a crypty market", vocabulary).style == ()
    assert analyse("a market, crypty style", vocabulary).style == ("gothic",)
    assert analyse("tres ciguapas", vocabulary).subject == ("animal",)
    assert analyse("a market, oil painting", vocabulary).medium == ("oil",)
    assert analyse("a market, zorgcore").style == ()


def test_an_own_file_that_has_changed_is_read_again(tmp_path: Path) -> None:
    own = tmp_path / "mood.toml"
    own.write_text("[dark]\nen = 'gloomsome'\n", encoding="utf-8")
    assert analyse("gloomsome", load_vocabulary(tmp_path)).mood == ("dark",)
    own.write_text("[calm]\nen = 'gloomsome, and more'\n", encoding="utf-8")
    assert analyse("gloomsome", load_vocabulary(tmp_path)).mood == ("calm",)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("stile.toml", "[gothic]\nen = 'x'\n", ("stile.toml", "style")),
        ("style.toml", "[gotic]\nen = 'x'\n", ("style.toml", "gotic", "gothic")),
        ("style.toml", "[gothic]\nfr = 'x'\n", ("style.toml", "gothic.fr", "en, es")),
        ("style.toml", "[gothic]\nen = ['x', 'y']\n", ("style.toml", "gothic.en", "must be text")),
        ("style.toml", "gothic = 'x'\n", ("style.toml", "gothic", "[gothic]")),
        ("style.toml", "[gothic\n", ("style.toml", "not TOML")),
        ("style.toml", "[gothic]\nen = 'a b c d e f g h i'\n", ("style.toml", "gothic.en", "more than 8 words")),
        ("real_words.toml", "[real_words]\nen = 'x'\n", ("real_words.toml", "no vocabulary")),
        ("numbers.toml", "[many]\nen = 'x'\n", ("numbers.toml", "many")),
    ],
)
def test_a_bad_file_gives_one_line(tmp_path: Path, name: str, content: str, words: tuple[str, ...]) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_vocabulary(tmp_path)
    assert len(caught.value.faults) == 1
    for word in words:
        assert word in caught.value.faults[0]


def test_a_file_that_is_no_text_gives_one_line(tmp_path: Path) -> None:
    (tmp_path / "style.toml").write_bytes(b"[gothic]\nen = '\xff'\n")
    (tmp_path / "mood.toml").write_bytes(b"#" * 2**21)
    with pytest.raises(ConfigError) as caught:
        load_vocabulary(tmp_path)
    assert [("UTF-8" in fault, "1 MiB" in fault) for fault in caught.value.faults] == [(False, True), (True, False)]
