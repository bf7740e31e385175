"""Model folders that cannot be used: one clear line each, exit code 2, and nothing written."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.running.main import main

UNET = "unet/diffusion_pytorch_model.safetensors"


def rewrite_index(folder: Path, **values: object) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | values))


def only_pickle(folder: Path) -> None:
    (folder / UNET).rename(folder / "unet" / "diffusion_pytorch_model.bin")


def huge_header(folder: Path) -> None:
    with (folder / UNET).open("r+b") as file:
        file.write(struct.pack("<Q", 100 * 2**20))
        file.truncate(200 * 2**20)


def broken_json(folder: Path) -> None:
    with (folder / UNET).open("r+b") as file:
        file.seek(8)
        file.write(b"}{")


def cut_off(folder: Path) -> None:
    with (folder / UNET).open("r+b") as file:
        file.truncate(file.seek(0, 2) - 1000)


def lying_offsets(folder: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 8]}}).encode()
    (folder / UNET).write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))


FAULTS: list[tuple[str, Callable[[Path], object], list[str]]] = [
    ("missing folder", shutil.rmtree, ["no such folder", "model_index.json"]),
    ("no weights", lambda folder: (folder / UNET).unlink(), ["unet/ has no weights", "safetensors"]),
    ("pickle only", only_pickle, ["pickle", "diffusion_pytorch_model.bin", "safetensors"]),
    ("huge header", huge_header, ["104,857,600 bytes", "16,777,216"]),
    ("broken header", broken_json, ["header is no valid JSON"]),
    ("cut off", cut_off, ["holds", "where its header says"]),
    ("too short", lambda folder: (folder / UNET).write_bytes(b"abc"), ["3 bytes long"]),
    ("lying offsets", lying_offsets, ["damaged at tensor 'a'"]),
    ("no index", lambda folder: (folder / "model_index.json").unlink(), ["model_index.json is missing"]),
    ("index is no JSON", lambda folder: (folder / "model_index.json").write_text("{"), ["cannot be read"]),
    ("component missing", lambda folder: shutil.rmtree(folder / "vae"), ["the folder vae/ is missing"]),
    ("foreign code", lambda folder: rewrite_index(folder, unet=["my_code", "UNet"]), ["'my_code'", "diffusers"]),
    ("code beside it", lambda folder: rewrite_index(folder, unet=["unet", "MyUNet"]), ["code from 'unet'"]),
    (
        "newer pipeline",
        lambda folder: rewrite_index(folder, _class_name="HoloPipeline"),
        ["HoloPipeline, which diffusers"],
    ),
    ("newer scheduler", lambda folder: rewrite_index(folder, scheduler=["diffusers", "Holo"]), ["scheduler is a Holo"]),
    ("no denoiser", lambda folder: rewrite_index(folder, unet=[None, None]), ["no denoiser"]),
]


@pytest.mark.parametrize(("break_it", "words"), [fault[1:] for fault in FAULTS], ids=[fault[0] for fault in FAULTS])
def test_unusable_folder_is_refused_in_one_line(
    break_it: Callable[[Path], object],
    words: list[str],
    tiny_sd: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(tiny_sd, folder)
    break_it(folder)
    assert main([plain_config(folder, tmp_path / "out")], []) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1, err
    assert [word for word in words if word not in err] == [], err
    assert not (tmp_path / "out" / "manifest").exists()


def test_lone_denoiser_hub_name_and_lost_path_are_no_models(
    tiny_sd: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    configs = [
        plain_config(source, tmp_path / "out") for source in (tiny_sd / UNET, "hf:org/name", "stabilityai/sdxl-turbo")
    ]
    assert main(configs, []) == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 3  # all faults of a sweep at once
    assert (
        "holds only unet; give model.config" in lines[0]
        and "'hf:org/name': not on this machine; fetch it with: darkroom models download " in lines[1]
        and "no such folder" in lines[2]
    )


def test_python_file_beside_the_weights_changes_nothing(tiny_sd: Path, tmp_path: Path) -> None:
    """A `custom_pipeline`-style file is no component, is not read, and does not make another model of it."""
    from pipeline.registry.model_settings import identify

    folder = tmp_path / "mine"
    shutil.copytree(tiny_sd, folder)
    for name in ("pipeline.py", "unet/my_unet.py"):
        (folder / name).write_text("raise SystemExit('run')\n")
    assert identify(str(folder))[0].sha256 == identify(str(tiny_sd))[0].sha256


def test_changed_weights_are_another_model(tiny_sd: Path, tmp_path: Path) -> None:
    from pipeline.registry.model_settings import identify

    folder = tmp_path / "mine"
    shutil.copytree(tiny_sd, folder)
    before = identify(str(folder))[0].sha256
    with (folder / UNET).open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    assert identify(str(folder))[0].sha256 != before


def plain_config(source: Path | str, output_dir: Path) -> dict[str, object]:
    return {
        "prompts": {"lines": ["a red house"]},
        "model": {"source": str(source)},
        "memory": {"level": "none"},
        "engine": {"device": "cpu"},
        "output": {"dir": str(output_dir)},
    }
