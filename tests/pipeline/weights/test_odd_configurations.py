"""Configurations in a model's folder that are made to harm, damaged, or of another time: one line, before any load."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ModelError
from pipeline.loading.component_weights import load_without_weights
from pipeline.loading.components import ComponentPart
from pipeline.registry.model_settings import identify
from pipeline.weights.inspection import inspect_file, inspect_model

Tiny = Callable[[str], Path]
CODE = {"AutoTokenizer": ["evil.Evil", None], "AutoModel": "evil.Evil"}
READ = ("model_index.json", "unet/config.json", "tokenizer/tokenizer_config.json", "scheduler/scheduler_config.json")


@pytest.fixture
def mine(tiny: Tiny, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny("sd15"), tmp_path / "mine"))


def edit(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def refusal(look: Callable[[], object]) -> str:
    with pytest.raises(ModelError) as refused:
        look()
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("name", [*READ, "text_encoder/config.json", "vae/config.json"])
@pytest.mark.parametrize("nested", [False, True])
def test_a_configuration_that_names_code_is_refused(mine: Path, name: str, nested: bool) -> None:
    edit(mine / name, **({"more": [{"auto_map": CODE}]} if nested else {"auto_map": CODE}))
    said = refusal(lambda: identify(str(mine)))
    assert said.startswith("model mine: ") and f"{name} names code of its own (auto_map), which is not run" in said


def test_code_behind_an_escape_and_in_a_component_is_refused(mine: Path) -> None:
    config = mine / "vae" / "config.json"
    config.write_text(
        json.dumps(json.loads(config.read_text()) | {"auto_map": CODE}).replace("auto_map", "auto\\u005fmap")
    )
    assert "names code of its own" in refusal(lambda: inspect_file(mine / "vae"))
    edit(config, auto_map=None)
    inspect_file(mine / "vae")


def test_transformers_does_not_ask_whether_to_run_code(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where a configuration that names some comes past the first look."""
    asked: list[object] = []
    monkeypatch.setattr("builtins.input", lambda *question: asked.append(question) or "y")
    edit(mine / "tokenizer" / "tokenizer_config.json", auto_map=CODE, tokenizer_class="Evil")
    (mine / "tokenizer" / "evil.py").write_text(f"open({str(mine / 'harm')!r}, 'w')\nclass Evil: pass\n")
    part = ComponentPart("tokenizer", "transformers", "AutoTokenizer", mine / "tokenizer")
    refusal(lambda: load_without_weights(part, "mine"))
    assert not asked and not (mine / "harm").exists()


@pytest.mark.parametrize("name", [*READ, "unet/diffusion_pytorch_model.safetensors.index.json"])
@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, '{"a": ' + "9" * 5_000 + "}"])
def test_json_that_cannot_be_parsed_is_one_line(mine: Path, name: str, text: str) -> None:
    (mine / name).write_text(text)
    assert refusal(lambda: identify(str(mine))).startswith("model mine: ")


@pytest.mark.parametrize("side", [None, "64", 1.5, [], [8], ["8", 8], -8, True, 10**9])
def test_sides_that_are_none_leave_those_of_the_family(mine: Path, side: Any) -> None:
    edit(mine / "unet" / "config.json", sample_size=side)
    files = inspect_model(mine)
    assert (files.width, files.height) == (512, 512)


def odd_values(folder: Path) -> Iterator[tuple[Path, str, object]]:
    odd = (None, "x", -1, 0, 1.5, [], {}, [[]], [None], ["a"], [1, "a"], {"a": 1}, True, 10**400, "\0")
    for file in (*sorted(folder.glob("*/*config.json")), folder / "model_index.json"):
        for key in json.loads(file.read_text()):
            yield from ((file, key, value) for value in odd)


@pytest.mark.campaign
@pytest.mark.parametrize("family", ["sd15", "sd3", "flux2_klein", "qwen_image"])
def test_no_value_in_a_configuration_is_a_traceback(tiny: Tiny, tmp_path: Path, family: str) -> None:
    folder = Path(shutil.copytree(tiny(family), tmp_path / "mine"))
    for file, key, value in odd_values(folder):
        before = file.read_text()
        edit(file, **{key: value})
        for look in (lambda: inspect_model(folder), lambda: inspect_file(folder / "vae")):
            try:
                look()
            except ModelError as error:
                assert "\n" not in str(error)
        file.write_text(before)
