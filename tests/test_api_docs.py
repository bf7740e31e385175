"""docs/api.md is complete and true: every public name, its arguments with their defaults, its fields, and examples."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_docs import first_cells, python_blocks, section, text_of

import jobs
import pipeline
import pipeline.system
from pipeline.api.picture import Picture

PAGE = "docs/api.md"
PACKAGES: tuple[Any, ...] = (pipeline, jobs, pipeline.system)
NAMES: dict[str, Any] = {name: getattr(package, name) for package in PACKAGES for name in package.__all__}
METHODS: dict[str, Any] = {
    f"{owner.__name__}.{name}": getattr(owner, name)
    for owner in (pipeline.Pipeline, pipeline.AutoPipeline, Picture)
    for name in vars(owner)
    if inspect.isfunction(getattr(owner, name)) and not name.startswith("_")
}
MADE_BY_US = (
    *("AutoPipeline", "Choice", "Explanation", "GeneratedImage", "ImageRequest", "Picture", "Record"),
    *("Reindexing", "Verification"),
    *("GpuUse", "ResourceStatistics", "Resources"),
)
"""Classes that users get and do not call."""

WITH_SIGNATURE = {
    name: value
    for name, value in {**NAMES, **METHODS}.items()
    if callable(value) and name not in MADE_BY_US and not (inspect.isclass(value) and issubclass(value, Exception))
}


def headings() -> list[str]:
    return re.findall(r"^### (.+)$", text_of(PAGE), re.MULTILINE)


def example_of(name: str) -> str:
    (block,) = re.findall(r"^```python\n(.*?)^```", section(PAGE, name), re.MULTILINE | re.DOTALL)
    return str(block)


def test_every_public_name_has_a_section_and_no_other() -> None:
    assert sorted(headings()) == sorted([*NAMES, *METHODS])


def signature_of(name: str, value: Callable[..., Any]) -> str:
    """As it is called: without `self` and types."""
    found = inspect.signature(value)
    kept = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in found.parameters.values()
        if parameter.name != "self"
    ]
    plain = found.replace(parameters=kept, return_annotation=inspect.Signature.empty)
    return f"{name.rpartition('.')[2]}{plain}"


@pytest.mark.parametrize("name", WITH_SIGNATURE)
def test_signatures_and_arguments_are_those_of_the_code(name: str) -> None:
    value = WITH_SIGNATURE[name]
    text = section(PAGE, name)
    written = re.search(r"^((?: {4}.*\n)+)", text, re.MULTILINE)
    assert written and "".join(written[1].split()) == "".join(signature_of(name, value).split())
    arguments = [parameter for parameter in inspect.signature(value).parameters if parameter != "self"]
    assert [cell.strip("`") for cell in first_cells(text)] == arguments


@pytest.mark.parametrize("name", [name for name in MADE_BY_US if dataclasses.is_dataclass(NAMES[name])])
def test_fields_are_those_of_the_code(name: str) -> None:
    fields = [field.name for field in dataclasses.fields(NAMES[name])]
    assert [cell.strip("`") for cell in first_cells(section(PAGE, name))] == fields


@pytest.mark.parametrize("name", [*NAMES, *METHODS])
def test_every_section_has_an_example_of_its_name(name: str) -> None:
    assert name.rpartition(".")[2] in example_of(name)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, tiny: Callable[[str], Path]) -> Path:
    """What the examples of adapters name: a tiny Stable Diffusion 1.5 and adapters that fit it."""
    import torch
    from adapter_files import write_controlnet, write_ip_adapter, write_picture, write_tensors
    from build_tiny_models import write_lora
    from diffusers import UNet2DConditionModel

    folder = tmp_path_factory.mktemp("files")
    (folder / "models").mkdir()
    (folder / "models" / "sd15").symlink_to(tiny("sd15"))
    unet = UNet2DConditionModel.from_pretrained(folder / "models" / "sd15" / "unet")
    write_lora(folder / "models" / "sd15" / "unet", folder / "style.safetensors", 0)
    write_tensors(folder / "word.safetensors", emb_params=torch.randn(1, unet.config.cross_attention_dim))
    write_controlnet(folder / "controlnet", unet)
    write_ip_adapter(folder / "ip_adapter", unet)
    write_picture(folder / "picture.png")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NAMES, *METHODS])
def test_examples_run(name: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.chdir(tmp_path)
    for path in files.iterdir():
        (tmp_path / path.name).symlink_to(path)
    exec(compile(example_of(name), f"{PAGE}: {name}", "exec"), {})


@pytest.mark.slow
def test_the_first_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(python_blocks(PAGE)[0], PAGE, "exec"), {})
    assert len(list(tmp_path.glob("outputs/*.png"))) == 1
