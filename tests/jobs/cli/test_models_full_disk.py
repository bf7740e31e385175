"""`darkroom models` on a data disk that is full: all is read, and what makes room works."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from forked import program
from small_disk import SmallDisk
from small_weights import fetched, write_lora

from pipeline.registry.database import Registry
from pipeline.registry.scanning import scan

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(home: Path, tmp_path: Path, small_disk: SmallDisk) -> Run:
    """`darkroom ...` where that disk is mounted, with the data folder on it."""

    def command(*arguments: str | Path) -> tuple[int, str, str]:
        env = {**os.environ, "DARKROOM_HOME": str(small_disk.inside / "home")}
        ended = program("darkroom", *arguments, cwd=tmp_path, folder=tmp_path, env=env, first=small_disk.enter)
        return ended.code, ended.out, ended.err

    return command


def is_full_said(err: str) -> bool:
    return err.count("\n") == 1 and "registry.sqlite: cannot be written: no space left on its disk; make room" in err


@pytest.mark.slow
def test_everything_is_read_and_what_makes_room_works(
    run: Run, tmp_path: Path, small_disk: SmallDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = write_lora(tmp_path / "mine" / "mine.safetensors")
    monkeypatch.setenv("DARKROOM_HOME", str(small_disk.inside / "home"))  # what lies under the mounted disk, then on it
    with Registry() as registry:
        scan(registry, mine.parent)
        one, two = (fetched(registry, write_lora(tmp_path / f"{n}.safetensors", rank=9 * n), n) for n in (1, 2))
    shutil.copytree(small_disk.inside / "home", small_disk.outside / "home")
    small_disk.fill()
    paths = run("models", "list", "--format", "paths")
    assert (paths[0], {*paths[1].split()}) == (0, {str(mine), str(one.path), str(two.path)})
    reading = (["models", "stats"], ["models", "show", "civitai:1"], ["models", "search", "mine", "--local"])
    for command in (*reading, ["models", "verify", "mine"], ["inspect", "civitai:1"]):
        code, out, err = run(*command)
        assert code == 0 and out and "space" not in err, command
    copy = shutil.copyfile(mine, tmp_path / "copy.safetensors")
    assert "the same file:" in run("models", "identify", copy)[1]
    code, _, err = run("models", "download", "mine", "--refresh")
    assert code == 2 and "--refresh works only for downloads from Hugging Face" in err
    code, _, err = run("models", "scan", write_lora(tmp_path / "more" / "more.safetensors").parent)
    assert code == 2 and is_full_said(err)
    code, out, err = run("models", "remove", "civitai:1")
    assert (code, err) == (0, "") and out.startswith("1: removed, ")
    small_disk.fill()
    code, out, err = run("models", "prune", "--max-gb", "0")
    assert (code, err) == (0, "") and out.startswith("removed: 2 (civitai:2)\n1 models removed, ")
    assert run("models", "list", "--format", "paths")[1].split() == [str(mine)]
    assert not [*(small_disk.outside / "home").rglob("*.safetensors")]


@pytest.mark.parametrize("has_folder", [True, False])
def test_without_a_registry_nothing_is_known(run: Run, tmp_path: Path, small_disk: SmallDisk, has_folder: bool) -> None:
    if has_folder:
        (small_disk.outside / "home").mkdir()
    small_disk.fill()
    for _ in range(2):  # the first leaves an empty file, for more there is no room
        code, out, err = run("models", "list")
        assert (code, out) == (0, "") and "nothing found" in err
        code, _, err = run("models", "scan", write_lora(tmp_path / "more" / "more.safetensors").parent)
        assert code == 2 and is_full_said(err)
