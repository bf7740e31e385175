"""The user's own folder of options is as good as `conf/`, and is looked at as sharply."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from forked import Ended, program

from jobs.config.hub_access import settings_of_this_machine
from jobs.config.option_folders import option_folders, shipped_folder

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own folder, with a prompt set."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder = tmp_path / "darkroom" / "conf"
    for group in ("prompts", "local", "wildcards"):
        (folder / group).mkdir(parents=True)
    (folder / "prompts" / "mine.yaml").write_text("lines: [a __thing__ at dawn]\n")
    (folder / "wildcards" / "thing.txt").write_text("boat\n")
    return folder


def run(folder: Path, *arguments: str) -> Ended:
    return program("run.py", *arguments, "dry_run=json", cwd=folder, folder=folder)


def test_without_such_a_folder_there_are_the_shipped_options_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert option_folders() == [shipped_folder()] == [ROOT / "conf"]


@pytest.mark.slow
def test_its_options_and_wildcards_are_taken(own: Path, tmp_path: Path) -> None:
    ended = run(tmp_path, "prompts=mine")
    assert ended.code == 0, ended.err
    assert [job["prompt"] for job in json.loads(ended.out)["jobs"]] == ["a boat at dawn"]
    swept = run(tmp_path, "-m", "prompts=mine,demo")
    assert json.loads(swept.out)["requested"] == 9


def test_its_options_are_listed_and_completed(own: Path, tmp_path: Path) -> None:
    listed = program("run.py", "--help", cwd=tmp_path, folder=tmp_path)
    assert re.search(r"^prompts: batch1, .*\bmine\b", listed.out, re.MULTILINE)
    line = {"COMP_LINE": "python run.py prompts=m", "COMP_POINT": "23"}
    completed = program("run.py", "-sc", "query=bash", cwd=tmp_path, folder=tmp_path, env={**os.environ, **line})
    assert completed.out.split() == ["prompts=mine"]


def test_its_local_file_holds_for_runs_and_commands(own: Path, tmp_path: Path) -> None:
    text = "# @package _global_\nname: every time\nhub: {proxy: 'socks5h://127.0.0.1:9050'}\n"
    (own / "local" / "default.yaml").write_text(text)
    shown = program("run.py", "--cfg", "job", "prompts=mine", cwd=tmp_path, folder=tmp_path)
    assert "name: every time" in shown.out
    assert settings_of_this_machine().proxy == "socks5h://127.0.0.1:9050"


def test_what_steers_hydra_or_hides_is_refused(own: Path, tmp_path: Path) -> None:
    (own / "prompts" / "evil.yaml").write_text("hydra: {run: {dir: elsewhere}}\n")
    (own / "prompts" / "demo.yaml").write_text("lines: [mine]\n")
    ended = run(tmp_path, "prompts=mine")
    assert ended.code == 2
    assert f"{own}/prompts/evil.yaml:1: the key 'hydra' configures Hydra itself" in ended.err
    assert f"{own}/prompts/demo.yaml: is never read, since {ROOT}/conf/prompts/demo.yaml has the same name" in ended.err
