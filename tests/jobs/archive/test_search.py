"""Searching: words, conditions, columns, order; and nothing that a condition could smuggle in."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from manifest_rows import START, attempt_of, done_of, make, write_part

from jobs.archive import found_formats
from jobs.archive.search import search
from jobs.manifest.journal import Journal
from jobs.manifest.schema import FAILED
from pipeline.errors import ConfigError, ReadError


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output_dir = tmp_path_factory.mktemp("outputs")
    write_part(
        output_dir,
        "a",
        [
            done_of(1, prompt="A Red house at SUNSET", tags=["sea", "dawn"], steps=8),
            done_of(2, prompt="a red boat, 100% calm_water", model="sdxl", steps=16),
            done_of(3, prompt="Ein ÄLTERES Haus, 日没", tags=["it's", 'a "quote"'], steps=32, seconds=None),
            attempt_of(4, status=FAILED, prompt="a red tree", error_kind="bad_pixels"),
        ],
    )
    return output_dir


def seeds(output_dir: Path, text: str = "", where: str | None = None, sort: str = "seed") -> list[int]:
    return [row["seed"] for row in search(output_dir, text, where, ("seed",), sort)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [1, 2, 3]),
        ("red", [1, 2]),
        ("sunset RED", [1]),
        ("red sdxl", [2]),
        ("dawn house", [1]),
        ("älteres 日没", [3]),
        ("100%", [2]),
        ("calm_water", [2]),
        ("calmXwater", []),
        ("it's", [3]),
        ('"quote"', [3]),
        ("' OR 1=1 --", []),
        ("sea dawn demo", [1]),
        ("tree", []),
    ],
)
def test_all_words_must_occur_in_prompt_tags_or_model(text: str, expected: list[int], outputs: Path) -> None:
    assert seeds(outputs, text) == expected


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("steps >= 16", [2, 3]),
        ("steps = 8 OR steps = 32", [1, 3]),
        ("list_contains(tags, 'sea')", [1]),
        ("created_at >= '2026-01-01 00:00:02'", [2, 3]),
        ("created_at >= '2026-01-01T01:00:02+01:00'", [2, 3]),
        ("prompt ILIKE '%haus%'", [3]),
        ("seconds IS NULL", [3]),
        ("status = 'failed'", [4]),
        ("status IN ('done', 'failed')", [1, 2, 3, 4]),
        ("seed = (SELECT max(seed) FROM images)", []),
        ("steps = 8 -- and nothing else", [1]),
        ("model LIKE 'sd%';", [2]),
    ],
)
def test_a_condition_over_the_columns(where: str, expected: list[int], outputs: Path) -> None:
    assert seeds(outputs, where=where) == expected


def test_words_and_condition_together(outputs: Path) -> None:
    assert seeds(outputs, "red", "steps >= 16") == [2]


REFUSED = [
    "steps =",
    "",
    "stepps = 3",
    "steps >= 'many'",
    "1=1; SELECT 1",
    "1=1; COPY (SELECT 1) TO 'stolen.csv'",
    "1=1) UNION SELECT 1 --",
    "1=1 UNION SELECT 1",
    "1=1 FROM read_csv('/etc/passwd')",
    "steps = 8, seed = 1",
    "prompt IN (SELECT column0 FROM read_csv('/etc/passwd'))",
    "(SELECT count(*) FROM read_text('/etc/passwd')) > 0",
    "EXISTS (SELECT * FROM read_blob('/proc/self/environ'))",
    "EXISTS (SELECT * FROM glob('/etc/*'))",
    "EXISTS (SELECT * FROM '/etc/passwd')",
    "EXISTS (FROM query('SELECT * FROM read_csv(''/etc/passwd'')'))",
    "EXISTS (FROM query_table('/etc/passwd'))",
    "EXISTS (COPY (SELECT 1) TO 'stolen.csv')",
    "EXISTS (ATTACH 'new.db')",
    "COPY (SELECT 1) TO 'stolen.csv'",
    "ATTACH 'new.db'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "PRAGMA threads = 1",
    "SET threads = 1",
    "getenv('HOME') != ''",
    "prompt = getvariable('x') AND set_config('a', 'b')",
]


@pytest.mark.parametrize("where", REFUSED)
def test_anything_else_is_refused_in_one_line(
    where: str, outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    working_folder = tmp_path / "cwd"
    working_folder.mkdir()
    monkeypatch.chdir(working_folder)
    with pytest.raises(ConfigError) as caught:
        search(outputs, where=where)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("--where")
    assert "steps >= 16" in message
    assert list(working_folder.iterdir()) == []


def test_columns_sorting_and_limit(outputs: Path) -> None:
    rows = [*search(outputs, columns=("steps", "created_at"), sort="-steps", limit=2)]
    assert rows == [
        {"steps": 32, "created_at": START.replace(second=3)},
        {"steps": 16, "created_at": START.replace(second=2)},
    ]
    assert seeds(outputs, sort="-seconds")[-1] == 3, "what has no value comes last, whatever the direction"
    assert seeds(outputs, sort="seconds")[-1] == 3
    by_status = [row["seed"] for row in search(outputs, where="status <> ''", columns=("seed",), sort="-status,-seed")]
    assert by_status == [4, 3, 2, 1], "the three images are alike by status, and the last made comes first"
    assert seeds(outputs, where="status <> ''", sort="-status, seed") == [4, 1, 2, 3]


def test_all_columns_have_python_types(outputs: Path) -> None:
    (row,) = search(outputs, "sunset", columns=("*",))
    assert row["created_at"] == datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert row["tags"] == ["sea", "dawn"]
    assert row["loras"] == []
    assert row["prompt_index"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"columns": ("stepps",)}, "--columns: there is no column 'stepps'; did you mean steps?"),
        ({"columns": ("error",)}, "--columns: there is no column 'error'; did you mean error_kind or error_message?"),
        ({"sort": "-sed"}, "--sort: there is no column 'sed'; did you mean seed?"),
        ({"columns": ("zzz",)}, "--columns: there is no column 'zzz'; --list-columns prints them all"),
    ],
)
def test_unknown_columns_name_the_nearest(arguments: dict[str, str], message: str, outputs: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        search(outputs, **arguments)  # type: ignore[arg-type]
    assert str(caught.value).startswith(message)


def test_every_unknown_column_is_told(outputs: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        search(outputs, columns=("promt", "seed", "sed"), sort="x")
    assert [fault.partition(";")[0] for fault in caught.value.faults] == [
        "--columns: there is no column 'promt'",
        "--columns: there is no column 'sed'",
        "--sort: there is no column 'x'",
    ]


def test_a_folder_without_manifest_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="no manifest here"):
        search(tmp_path)


def test_a_running_batch_is_searched_too(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        make(journal, tmp_path, 1)
        assert seeds(tmp_path, "house") == [1]


@pytest.mark.parametrize("format", ["json", "csv"])
def test_what_is_found_is_printed_as_it_is_read(format: str) -> None:
    """A hundred thousand rows with their records take hundreds of megabytes."""
    read = 0

    def rows() -> Iterator[dict[str, object]]:
        nonlocal read
        for read in range(1, 1001):
            yield {"seed": read, "prompt": 'two\n"lines"'}

    lines = found_formats.as_json(rows()) if format == "json" else found_formats.as_csv(("seed", "prompt"), rows())
    first = [next(lines), next(lines)]
    assert read <= 2
    text = "\n".join([*first, *lines])
    back = json.loads(text) if format == "json" else [*csv.DictReader(io.StringIO(text))]
    assert [int(row["seed"]) for row in back] == [*range(1, 1001)]
    assert {row["prompt"] for row in back} == {'two\n"lines"'}
