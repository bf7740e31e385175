"""`darkroom models` on a data disk that is full: all is read, and what makes room works."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_disk import SmallDisk

REPO = Path(__file__).parents[3]

from small_weights import fetched, write_lora  # noqa: E402

from pipeline.registry.database import Registry  # noqa: E402
from pipeline.registry.scanning import scan  # noqa: E402

Run = Callable[..., tuple[int, str, str]]

COMMANDS = """
import contextlib, json, sys, tempfile
from jobs.cli import entry
for line in sys.stdin:
    sys.argv = ["darkroom", *json.loads(line)]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = entry.main()
        said = [file.seek(0) or file.read() for file in (out, err)]
    print(json.dumps([code, *said]), flush=True)
"""


@pytest.fixture
def run(home: Path, small_disk: SmallDisk) -> Iterator[Run]:
    """`darkroom ...` where that disk is mounted, with the data folder on it."""
    with subprocess.Popen(
        [*small_disk.prefix, "env", f"DARKROOM_HOME={small_disk.inside / 'home'}", sys.executable, "-c", COMMANDS],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(REPO)},
    ) as process:  # fmt: skip
        assert process.stdin and process.stdout

        def command(*arguments: object) -> tuple[int, str, str]:
            assert process.stdin and process.stdout
            print(json.dumps([*map(str, arguments)]), file=process.stdin, flush=True)
            code, out, err = json.loads(process.stdout.readline())
            return code, out, err

        yield command
        process.stdin.close()


def is_full_said(err: str) -> bool:
    return err.count("\n") == 1 and "registry.sqlite: cannot be written: no space left on its disk; make room" in err


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
