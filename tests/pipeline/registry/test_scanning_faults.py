"""Nothing that lies in a folder stops a scan: strangers' files, odd files, links in circles, other processes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from opened_files import files_opened
from processes import output, python
from published_weights import write_header
from small_weights import (
    below,
    write_demo,
    write_hub_cache,
    write_lora,
)

from pipeline.errors import ModelError
from pipeline.registry.database import Registry
from pipeline.registry.queries import list_models
from pipeline.registry.scanning import scan
from pipeline.weights.references import EMBEDDED

COMMIT = "a" * 40


def names(registry: Registry) -> list[str]:
    return [model.name for model in list_models(registry)]


def test_half_fetched_repository_is_refused_with_the_reason(registry: Registry, tmp_path: Path) -> None:
    files = below(write_demo(tmp_path / "somewhere"))
    del files["unet/diffusion_pytorch_model.safetensors"]
    folder = write_hub_cache(tmp_path / "hub", "org/half", COMMIT, files)
    report = scan(registry, tmp_path / "hub")
    assert [path for path, _ in report.refused] == [folder] and "unet/ has no weights" in report.refused[0][1]


def test_what_is_no_model_is_refused_with_the_reason_and_remembered(registry: Registry, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    sound = write_lora(folder / "sound.safetensors")
    (folder / "page.safetensors").write_text("<!DOCTYPE html><title>Log in</title>")
    (folder / "error.safetensors").write_text('{"error":"Unauthorized"}')
    (folder / "cut.safetensors").write_bytes(sound.read_bytes()[:-7])
    (folder / "empty.safetensors").touch()
    (folder / "old.ckpt").write_bytes(b"\x80\x04")
    (folder / "huge.safetensors").write_bytes((100 * 2**20).to_bytes(8, "little") + b"{")
    write_header(folder / "unknown.safetensors", {"a\x1b[2J\n.weight": (2, 2), "b": (1,)})
    write_header(folder / "model-00001-of-00002.safetensors", {"a": (1,)})
    (folder / "nowhere.safetensors").symlink_to(folder / "no such file")
    report = scan(registry, folder)
    why = {path.name: reason for path, reason in report.refused}
    assert names(registry) == ["sound"]
    for name, words in {
        "page.safetensors": "a web page",
        "error.safetensors": "JSON text",
        "cut.safetensors": "fetch the file again",
        "empty.safetensors": "too short",
        "old.ckpt": "a pickle",
        "huge.safetensors": "announces a header of 104,857,600 bytes",
        "unknown.safetensors": "no family that is known",
        "model-00001-of-00002.safetensors": "one part of several",
        "nowhere.safetensors": "leads nowhere",
    }.items():
        assert words in why.pop(name), name
    assert why == {}
    assert all(reason.isprintable() for _, reason in report.refused)
    with files_opened(folder) as opened:
        again = scan(registry, folder)
    assert opened == [] and sorted(again.refused) == sorted(report.refused) and again.unchanged == 1


def test_configuration_that_nobody_thought_of_ends_no_scan(registry: Registry, tmp_path: Path) -> None:
    for name, config in (("numbers", '{"architectures": 5}'), ("list", "[]"), ("deep", '{"a":' * 100_000)):
        shutil.copytree(EMBEDDED["demo"] / "vae", tmp_path / "models" / name)
        (tmp_path / "models" / name / "config.json").write_text(config)
    write_demo(tmp_path / "models" / "index")
    (tmp_path / "models" / "index" / "model_index.json").write_text('{"_class_name": "A", "unet": [[], {}]}')
    write_lora(tmp_path / "models" / "style.safetensors")
    report = scan(registry, tmp_path / "models")
    assert "style" in names(registry) and "index" not in names(registry)
    assert {"list", "deep", "index"} <= {path.name for path, _ in report.refused}
    assert all(why and why.isprintable() for _, why in report.refused)


def test_pipes_and_devices_under_the_name_of_weights_are_not_waited_for(registry: Registry, tmp_path: Path) -> None:
    """Opening a pipe that nobody writes to would wait for ever."""
    folder = write_demo(tmp_path / "models" / "postcards")
    os.mkfifo(folder.parent / "pipe.safetensors")
    os.mkfifo(folder.parent / "beside.json")
    write_lora(folder.parent / "beside.safetensors")
    config = folder / "vae" / "config.json"
    config.unlink()
    os.mkfifo(config)
    report = scan(registry, folder.parent)
    assert names(registry) == ["beside"]
    assert {path.name: why for path, why in report.refused} == {
        "pipe.safetensors": "pipe.safetensors: is no regular file",
        "postcards": "postcards: vae/config.json is no regular file",
    }


def test_links_in_circles_end_and_nothing_is_found_twice(registry: Registry, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    write_lora(folder / "a" / "style.safetensors")
    (folder / "a" / "up").symlink_to(folder)
    (folder / "b").symlink_to(folder / "a")
    (folder / "self").symlink_to(folder / "self")
    assert scan(registry, folder).found == 1
    assert names(registry) == ["style"]


def test_folder_that_cannot_be_read_is_named_and_what_was_known_there_stays(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lora(tmp_path / "models" / "open" / "one.safetensors")
    closed = write_lora(tmp_path / "models" / "closed" / "two.safetensors").parent
    scan(registry, tmp_path / "models")
    scandir = os.scandir

    def refuse(path: Path) -> Any:
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr("os.scandir", refuse)
    report = scan(registry, tmp_path / "models")
    assert report.refused == [(closed, "cannot be read (Permission denied)")] and report.gone == 0
    assert names(registry) == ["one", "two"]


def test_names_that_are_not_utf8_are_refused_and_the_rest_is_taken(registry: Registry, tmp_path: Path) -> None:
    folder = write_lora(tmp_path / "models" / "good.safetensors").parent
    shutil.copy(folder / "good.safetensors", os.fsencode(folder) + b"/bad\xff.safetensors")
    report = scan(registry, folder)
    assert names(registry) == ["good"] and "not UTF-8" in report.refused[0][1]


def test_folder_that_is_not_there_is_one_line(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        scan(registry, tmp_path / "nowhere")
    with pytest.raises(ModelError, match="no such folder"):
        scan(registry, write_lora(tmp_path / "file.safetensors"))


def test_scan_that_is_broken_off_keeps_what_it_has(registry: Registry, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    for number in range(150):
        write_lora(folder / f"lora{number:03}.safetensors", rank=1)

    def stop(path: Path) -> None:
        if path.name == "lora140.safetensors":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan(registry, folder, stop)
    kept = len(list_models(registry))
    assert kept == 100
    report = scan(registry, folder)
    assert (report.unchanged, report.added) == (kept, 150 - kept)


def test_two_processes_may_scan_one_folder(registry: Registry, tmp_path: Path) -> None:
    for number in range(120):
        write_lora(tmp_path / "loras" / f"lora{number}.safetensors", rank=1)
    code = (
        "import sys; from pathlib import Path\n"
        "from pipeline.registry.database import Registry\n"
        "from pipeline.registry.scanning import scan\n"
        "with Registry() as registry: print(scan(registry, Path(sys.argv[1])).found)"
    )
    both = [python(code, tmp_path / "loras") for _ in range(2)]
    assert [output(process) for process in both] == ["120", "120"]
    assert len(list_models(registry)) == 120
