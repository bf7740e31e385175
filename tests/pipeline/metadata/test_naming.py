"""Names: the four schemes, any prompt in any script, and never anything that a file system refuses."""

from __future__ import annotations

import unicodedata
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pathvalidate import is_valid_filename

from pipeline.errors import ConfigError
from pipeline.metadata.naming import NamingSettings, image_path
from pipeline.metadata.record import JobRecord, ModelRecord, Record
from pipeline.storage.safe_names import cut_bytes, excerpt, is_reserved, safe_component

ID = "a3f2e9d4-b2c1-4a8e-9f3d-1e2a4b5c6d7e"
CREATED = datetime(2025, 1, 11, 14, 30, 22, 123000, tzinfo=UTC)
ALL = ("time", "excerpt", "id8", "uuid", "seed", "index", "model", "name")


def record(prompt: str = "Beautiful sunset", **changes: Any) -> Record:
    """What a name is built of; any text, since it is not validated."""
    values: dict[str, Any] = {"id": ID, "created": CREATED, "seed": 7, "model": "demo", "name": "batch1", "index": 3}
    values |= changes
    values["model"] = ModelRecord.model_construct(name=values["model"])
    values["job"] = JobRecord.model_construct(name=values.pop("name"), prompt_index=values.pop("index"))
    return Record.model_construct(prompt=prompt, **values)


def name_of(prompt: str = "Beautiful sunset", facts_of: dict[str, Any] | None = None, **setting: Any) -> str:
    return str(image_path(NamingSettings(**setting), record(prompt, **(facts_of or {}))))


def check_component(name: str) -> None:
    """Legal on Linux, macOS and Windows, by pathvalidate's rules and by those that it lacks."""
    assert is_valid_filename(name, platform="universal", max_len=199)
    assert 0 < len(name.encode()) < 200
    assert name not in (".", "..") and name[0] not in ".-~ " and name[-1] not in ". "
    assert not is_reserved(name)
    assert unicodedata.is_normalized("NFC", name)
    assert not {unicodedata.category(c) for c in name} & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"}


def test_the_schemes() -> None:
    assert name_of() == "batch1/20250111_143022_a3f2e9d4"
    assert name_of(scheme="descriptive") == "batch1/20250111_143022_beautiful-sunset_a3f2e9d4"
    assert name_of(scheme="guid") == f"batch1/{ID}"
    assert name_of(scheme="guid", folder="") == ID


def test_custom_names() -> None:
    made = name_of(
        scheme="custom",
        components=("index", "seed", "model", "excerpt"),
        separator="-",
        excerpt_length=9,
        folder="{model}/{date}/seed {seed}",
    )
    assert made == "demo/2025-01-11/seed-7/000003-7-demo-beautiful"
    made = name_of(
        scheme="custom",
        components=("time", "uuid"),
        time_format="%Y-%m-%dT%H%M%S.%fZ",
        folder="{year}/{month}",
    )
    assert made == f"2025/01/2025-01-11T143022.123000Z_{ID}"


def test_times_are_utc_and_missing_parts_are_left_out() -> None:
    local = CREATED.astimezone(timezone(timedelta(hours=-9)))
    assert name_of(facts_of={"created": local, "name": None}) == "20250111_143022_a3f2e9d4"
    parts = {"name": None, "index": None}
    assert name_of("...", facts_of=parts, scheme="custom", components=("name", "index", "excerpt", "seed")) == "7"


def test_a_record_names_itself(sample: Callable[..., Any]) -> None:
    made = sample("a red house, in hills").record
    path = image_path(NamingSettings(scheme="descriptive"), made)
    assert path == PurePosixPath(f"batch1/20250111_143022_a-red-house-in-hills_{made.id[:8]}")


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("A beautiful sunset", "a-beautiful-sunset"),
        ("(masterpiece:1.2), best   quality!!", "masterpiece-1-2-best-quality"),
        ("日本語の猫、夜の街", "日本語の猫-夜の街"),
        ("नमस्ते दुनिया", "नमस्ते-दुनिया"),
        ("בית אדום", "בית-אדום"),
        ("Cafe\u0301 NOIR", "café-noir"),
        ("🐈🐈🐈", ""),
        ("../../etc/passwd", "etc-passwd"),
        ("C:\\nul", "c-nul"),
        ("NUL", "_nul"),
        ("", ""),
        ("x" * 50, "x" * 40),
        ("one " * 30, "one-one-one-one-one-one-one-one-one-one"),
        ("\u202etxt\u200b.exe", "txt-exe"),
    ],
)
def test_excerpts_are_whole_words_of_any_script(prompt: str, expected: str) -> None:
    assert excerpt(prompt, 40, 120) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sd_xl_base_1.0", "sd_xl_base_1.0"),
        ("org/name", "org-name"),
        ("..", ""),
        ("aux.", "_aux"),
        ("nul .png", "nul-.png"),
        ("CONIN$", "_CONIN$"),
        ("COM¹.txt", "_COM¹.txt"),
        ("-rf ~", "rf-~"),
        (".hidden", "hidden"),
        ("a b\tc\n", "a-b-c-"),
        ("null\x00\x1b[31m", "null[31m"),
    ],
)
def test_components_that_file_systems_refuse(text: str, expected: str) -> None:
    made = safe_component(text, 60)
    assert made.rstrip("-") == expected.rstrip("-")
    if made:
        check_component(made)


def test_cutting_splits_no_letter() -> None:
    assert cut_bytes("日本語", 7) == "日本"
    assert cut_bytes("ab\u0323\u0308c", 3) == "a"
    assert cut_bytes("abc", 3) == "abc"


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ({"scheme": "pretty"}, "naming.scheme"),
        ({"time_format": "%Y/%m"}, "naming.time_format"),
        ({"time_format": "%H:%M"}, "naming.time_format"),
        ({"time_format": "%B %Z"}, "naming.time_format"),
        ({"time_format": "%"}, "naming.time_format"),
        ({"time_format": "%Q"}, "naming.time_format"),
        ({"time_format": ""}, "naming.time_format"),
        ({"time_format": "x" * 41}, "naming.time_format"),
        ({"separator": "/"}, "naming.separator"),
        ({"separator": ""}, "naming.separator"),
        ({"excerpt_length": 0}, "naming.excerpt_length"),
        ({"excerpt_length": True}, "naming.excerpt_length"),
        ({"components": ()}, "naming.components"),
        ({"components": ("time", "host")}, "naming.components"),
        ({"components": ("time", "time")}, "naming.components"),
        ({"folder": "../x"}, "naming.folder"),
        ({"folder": "a/../b"}, "naming.folder"),
        ({"folder": "/tmp"}, "naming.folder"),
        ({"folder": "C:\\x"}, "naming.folder"),
        ({"folder": "a//b"}, "naming.folder"),
        ({"folder": "a/"}, "naming.folder"),
        ({"folder": "{user}"}, "naming.folder"),
        ({"folder": "{0}"}, "naming.folder"),
        ({"folder": "{}"}, "naming.folder"),
        ({"folder": "{name.__class__}"}, "naming.folder"),
        ({"folder": "{name!r}"}, "naming.folder"),
        ({"folder": "{seed:>99999999}"}, "naming.folder"),
        ({"folder": "{name"}, "naming.folder"),
        ({"folder": "{{name}}"}, None),
        ({"folder": "1/2/3/4/5/6"}, "naming.folder"),
    ],
)
def test_bad_settings_are_refused_with_key_value_and_expectation(setting: dict[str, Any], key: str | None) -> None:
    if key is None:
        check_component(NamingSettings(**setting).folder.strip("{}"))
        return
    with pytest.raises(ConfigError) as caught:
        NamingSettings(**setting)
    (fault,) = caught.value.faults
    assert fault.startswith(f"{key}: ") and "expected" in fault and "\n" not in fault


def test_all_faults_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        NamingSettings(scheme="x", separator="", folder="..")  # type: ignore[arg-type]
    assert len(caught.value.faults) == 3


TEXTS = st.text(st.characters(codec=None), max_size=150) | st.sampled_from(
    [
        "CON",
        "nul.txt",
        "..",
        "../..",
        "/etc",
        "a" * 500,
        "猫" * 300,
        "🐈" * 99,
        "e\u0301" * 200,
        " ",
        "\x00",
        "\ud800",
        "C:",
    ]
)


@given(
    prompt=TEXTS,
    model=TEXTS,
    name=st.none() | TEXTS,
    index=st.none() | st.integers(0, 10**7),
    seed=st.integers(0, 2**53 - 1),
    scheme=st.sampled_from(["standard", "descriptive", "guid", "custom"]),
    components=st.lists(st.sampled_from(ALL), min_size=1, unique=True),
    separator=st.sampled_from(["_", "-", ".", "~", "+=,"]),
    excerpt_length=st.integers(1, 120),
    folder=st.sampled_from(
        ["", "{name}", "{model}/{date}", "{name}/{model}/{seed}/{index}/{year}", "{name}{model}", "x {day}"]
    ),
)
def test_names_are_safe_whatever_they_are_made_of(
    prompt: str,
    model: str,
    name: str | None,
    index: int | None,
    seed: int,
    scheme: Any,
    components: list[Any],
    separator: str,
    excerpt_length: int,
    folder: str,
) -> None:
    naming = NamingSettings(scheme, "%Y%m%d_%H%M%S", separator, excerpt_length, tuple(components), folder)
    made = image_path(naming, record(prompt, model=model, name=name, index=index, seed=seed))
    assert not made.is_absolute() and ".." not in made.parts
    for folder_name in made.parts[:-1]:
        check_component(folder_name)
    for extension in (".png", ".jpeg", "-9999.json"):
        check_component(made.name + extension)
    check_component(made.name)
    if scheme != "custom" or {"id8", "uuid"} & set(components):
        assert ID[:8] in made.name, "the id is never cut off"


@given(
    prompts=st.lists(TEXTS, min_size=2, max_size=6),
    scheme=st.sampled_from(["standard", "descriptive", "guid"]),
)
def test_names_differ_even_where_case_does_not_count(prompts: list[str], scheme: Any) -> None:
    naming = NamingSettings(scheme=scheme)
    ids = [str(uuid.UUID(int=number << 100, version=4)) for number in range(1, len(prompts) + 1)]
    names = [image_path(naming, record(prompt, id=image_id)) for prompt, image_id in zip(prompts, ids, strict=True)]
    folded = {unicodedata.normalize("NFC", str(name).casefold()) for name in names}
    assert len(folded) == len(prompts)


def test_words_that_differ_in_case_make_one_name() -> None:
    """So that the clash is seen, and counted on, on Linux as well as where case does not count."""
    custom: dict[str, Any] = {"scheme": "custom", "components": ("excerpt", "model", "name")}
    assert name_of("Red House", {"model": "Demo"}, **custom) == name_of("red HOUSE", {"model": "demo"}, **custom)


@pytest.mark.parametrize("name", ["manifest", "Runs", "MANIFEST"])
def test_images_stay_out_of_the_folders_of_the_manifest_and_the_reports(name: str) -> None:
    assert name_of(facts_of={"name": name}).startswith(f"_{name}/")
    with pytest.raises(ConfigError, match="own folder"):
        NamingSettings(folder=f"{name}/parts")
