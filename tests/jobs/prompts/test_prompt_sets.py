"""Prompt sets: what is read from each kind of file, and what is said of a bad one."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.config.sections import Prompts
from jobs.prompts.open_prompts import open_prompts
from pipeline.errors import ConfigError, PromptFileError

WriteFile = Callable[[str, str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> WriteFile:
    def write_file(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_file


def texts(path: Path) -> list[str]:
    return [line.text for line in open_prompts(Prompts(file=str(path)))]


def faults_of(**settings: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        open_prompts(Prompts(**settings))
    return list(caught.value.faults)


def fault_of(path: Path) -> str:
    with pytest.raises(PromptFileError) as caught:
        open_prompts(Prompts(file=str(path)))
    assert len(caught.value.faults) == 1
    return caught.value.faults[0].replace(str(path.parent) + "/", "")


def test_inline_lines_may_be_texts_or_mappings() -> None:
    prompts = open_prompts(
        Prompts(
            lines=[
                "a red house",
                {"text": "a boat", "negative_prompt": "people", "seeds": [1, 2], "tags": "sea; blue", "name": "b"},
                {"prompt": "a tree", "seed": 7, "steps": 12, "scheduler": "euler_a", "width": 128},
            ]
        )
    )
    plain, boat, tree = prompts
    assert (plain.text, plain.negative_prompt, plain.seeds, plain.tags) == ("a red house", None, None, ())
    assert (boat.negative_prompt, boat.seeds, boat.tags, boat.name) == ("people", [1, 2], ("sea", "blue"), "b")
    assert (tree.seeds, tree.sampling.steps, tree.sampling.scheduler) == ([7], 12, "Euler a")
    assert tree.sampling.height is None
    assert tree.where == "prompts.lines[2]"


def test_all_faults_of_inline_lines_are_reported_with_their_place() -> None:
    faults = faults_of(
        lines=[{"text": "a", "stpes": 3}, {"text": "b", "steps": 0, "width": 100}, 5, "", {"steps": 3}, {"text": 1}]
    )
    assert faults == [
        "prompts.lines[0]: stpes: unknown key; did you mean 'steps'?",
        "prompts.lines[1]: steps: must be a whole number from 1 to 1000 (got 0)",
        "prompts.lines[1]: width: must be a multiple of 8 pixels, for instance 96 or 104 (got 100)",
        "prompts.lines[2]: must be a text in quotes, or a mapping with a text (got 5)",
        "prompts.lines[3]: text: is empty; write a prompt or remove the line",
        "prompts.lines[4]: text: is missing",
        "prompts.lines[5]: text: must be text; put it in quotes (got 1)",
    ]


def test_of_many_faults_the_first_are_named() -> None:
    faults = faults_of(lines=[""] * 50)
    assert len(faults) == 21
    assert faults[-1] == "... and 30 more"


def test_an_empty_set_is_refused() -> None:
    assert faults_of(lines=[]) == ["prompts.lines: is empty; give at least one prompt"]


def test_a_text_file_has_a_prompt_per_line(write: WriteFile) -> None:
    path = write("p.txt", "\ufeff# comment\n\n  a red house  \r\nein grünes Boot\n   \n# end\na tree")
    prompts = open_prompts(Prompts(file=str(path)))
    assert [line.text for line in prompts] == ["a red house", "ein grünes Boot", "a tree"]
    assert [line.where.rpartition(":")[2] for line in prompts] == ["3", "4", "7"]
    assert prompts[2] == list(prompts)[2] == prompts[-1]
    assert prompts[:2] == list(prompts)[:2]


def test_interpolations_in_a_file_are_just_text(write: WriteFile) -> None:
    assert texts(write("p.txt", "${oc.env:HF_TOKEN} ${a} $HOME\n")) == ["${oc.env:HF_TOKEN} ${a} $HOME"]


def test_a_table_has_a_column_per_key(write: WriteFile) -> None:
    path = write(
        "p.csv",
        "prompt,Seeds,steps,guidance_scale,tags,negative_prompt,name\n"
        "a red house,1;2,,,,,\n"
        '"a boat, with\na ""mast""",,12,3.5,"sea;blue",people,boats\n'
        "\n"
        'a tree,"range(3, 5)",,,,,\n',
    )
    house, boat, tree = open_prompts(Prompts(file=str(path)))
    assert (house.text, house.seeds, house.sampling.steps, house.tags) == ("a red house", [1, 2], None, ())
    assert boat.text == 'a boat, with\na "mast"'
    assert (boat.sampling.steps, boat.sampling.guidance_scale, boat.tags) == (12, 3.5, ("sea", "blue"))
    assert (boat.negative_prompt, boat.name) == ("people", "boats")
    assert list(tree.seeds or ()) == [3, 4]
    assert [line.where.rpartition(":")[2] for line in (house, boat, tree)] == ["2", "3", "6"]


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_tables_of_other_spreadsheets_are_read(write: WriteFile, delimiter: str) -> None:
    path = write("p.csv", "\ufefftext|steps\r\na red house, at dawn|7\r\n".replace("|", delimiter))
    (line,) = open_prompts(Prompts(file=str(path)))
    assert (line.text, line.sampling.steps) == ("a red house, at dawn", 7)


def test_json_lines_are_texts_or_mappings(write: WriteFile) -> None:
    items = ["a red house", {"text": "a boat", "seeds": {"start": 3, "count": 2}, "tags": ["sea"]}]
    path = write("p.jsonl", "\n\n".join(json.dumps(item) for item in items))
    house, boat = open_prompts(Prompts(file=str(path)))
    assert house.text == "a red house"
    assert (boat.seeds, boat.tags, boat.where.rpartition(":")[2]) == (range(3, 5), ("sea",), "3")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("p.txt", "", "p.txt: is empty; write at least one prompt"),
        ("p.txt", "# nothing\n\n", "p.txt: holds no prompts; write at least one"),
        ("p.csv", "prompt\n", "p.csv: holds no prompts; write at least one"),
        ("p.txt", b"ok\na\0b\n", "p.txt:2: holds a NUL byte; this is a binary file, not text"),
        ("p.txt", "a\n".encode("utf-16"), "p.txt: is UTF-16; save it as UTF-8"),
        ("p.txt", b"ok\nf\xfcr\n", "p.txt:2: is not UTF-8 (byte 0xfc at position 2); save it as UTF-8"),
        ("p.csv", b"prompt\nok\nf\xfcr\n", "p.csv:3: is not UTF-8 (byte 0xfc at position 2); save it as UTF-8"),
        ("p.txt", "ok\nbell \a\n", "p.txt:2: text: holds U+0007, a control character, as character 6; remove it"),
        (
            "p.csv",
            "word,steps\na,1\n",
            "p.csv:1: has no column prompt or text (columns: word, steps); add a header line",
        ),
        ("p.csv", "prompt,stpes\na,1\n", "p.csv:1: column 'stpes': unknown key; did you mean 'steps'?"),
        ("p.csv", "prompt,text\na,b\n", "p.csv:1: column 'text': is there twice"),
        (
            "p.csv",
            "prompt,steps\nok,1\na,1,2\n",
            "p.csv:3: has 3 cells for 2 columns; put a text with ',' in double quotes",
        ),
        ("p.csv", "prompt,steps\nok,1\na,many\n", "p.csv:3: steps: must be a whole number from 1 to 1000 (got 'many')"),
        ("p.csv", 'prompt\nok\n"open\n\n', "p.csv:3: is not CSV (unexpected end of data); check its quotes"),
        ("p.csv", "prompt,steps\n,3\n", "p.csv:2: text: is missing"),
        (
            "p.jsonl",
            '"a"\n{"text": }\n',
            "p.jsonl:2: is not JSON (Expecting value, column 10); one text or mapping per line",
        ),
        ("p.jsonl", '"a"\n7\n', "p.jsonl:2: must be a text in quotes, or a mapping with a text (got 7)"),
        (
            "p.jsonl",
            '{"text": "a\\ud800b"}\n',
            "p.jsonl:1: text: holds U+D800, half a surrogate pair, as character 2; remove it",
        ),
        (
            "p.jsonl",
            '"a\\u0000b"\n',
            "p.jsonl:1: text: holds U+0000 (NUL), a control character, as character 2; remove it",
        ),
        ("p.txt", "x" * 1_100_000, "p.txt:1: is longer than 1,048,576 bytes; is it a prompt file?"),
    ],
)
def test_a_bad_file_is_named_with_its_line(write: WriteFile, name: str, content: str | bytes, expected: str) -> None:
    assert fault_of(write(name, content)) == expected


def test_every_bad_line_of_a_file_is_named(write: WriteFile) -> None:
    path = write("p.csv", "prompt,steps\n" + "a,0\n" * 30)
    with pytest.raises(PromptFileError) as caught:
        open_prompts(Prompts(file=str(path)))
    assert len(caught.value.faults) == 21
    assert caught.value.faults[19].endswith("p.csv:21: steps: must be a whole number from 1 to 1000 (got 0)")
    assert caught.value.faults[20] == "... and 10 more"


def test_a_missing_file_is_looked_for_beside_the_set_and_in_the_working_folder(
    write: WriteFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("colours.txt", "red\n")
    monkeypatch.chdir(tmp_path)
    assert len(open_prompts(Prompts(file="colours.txt"))) == 1
    beside = tmp_path / "sets"
    beside.mkdir()
    (beside / "colours.txt").write_text("red\nblue\n")
    assert len(open_prompts(Prompts(file="colours.txt"), [beside])) == 2
    with pytest.raises(PromptFileError) as caught:
        open_prompts(Prompts(file="colors.txt"), [beside])
    message = str(caught.value)
    assert str(beside) in message and str(tmp_path) in message and "did you mean 'colours.txt'?" in message


def test_a_folder_or_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    assert "is a folder or a device" in faults_of(file=str(tmp_path / "a.txt"))[0]
    assert "must be a .txt, .csv or .jsonl file" in faults_of(file="prompts.yaml")[0]


def test_awkward_text_survives_to_the_last_character(write: WriteFile) -> None:
    lines = [
        "Negative prompt: x",
        "Steps: 20, Sampler: Euler",
        "\u202egnirts",
        "👩‍🚀 in 雪",
        '"quoted" \\n <lora:a:1> [b] (c:1.2)',
    ]
    awkward = "\n".join(lines)
    long = "long " * 20_000
    path = write("p.jsonl", json.dumps({"text": awkward}, ensure_ascii=False) + "\n" + json.dumps(long) + "\n")
    assert texts(path) == [awkward, long]
    assert open_prompts(Prompts(lines=[awkward, long]))[0].text == awkward


def test_line_breaks_are_the_same_on_every_system() -> None:
    assert open_prompts(Prompts(lines=["a\r\nb\rc"]))[0].text == "a\nb\nc"


@pytest.mark.parametrize("length", [2, 100_000])
def test_what_was_planned_from_a_file_stays_whatever_becomes_of_the_file(write: WriteFile, length: int) -> None:
    path = write("p.txt", "".join(f"a house with {number:>6} windows\n" for number in range(length)))
    prompts = open_prompts(Prompts(file=str(path)))
    begun = iter(prompts)
    first = next(begun).text
    path.write_text("another\nfile\n")
    assert prompts[1].text == "a house with      1 windows"
    path.unlink()
    assert [first, *(prompt.text for prompt in begun)] == [prompt.text for prompt in prompts]
    assert len(prompts) == length


@pytest.mark.campaign
def test_a_hundred_thousand_lines_take_no_memory(write: WriteFile) -> None:
    path = write("p.txt", "".join(f"a red house number {index} in hills at sunset\n" for index in range(100_000)))
    tracemalloc.start()
    prompts = open_prompts(Prompts(file=str(path)))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 8_000_000
    assert len(prompts) == 100_000
    assert prompts[77_777].text == "a red house number 77777 in hills at sunset"
    assert sum(1 for _ in prompts) == 100_000
