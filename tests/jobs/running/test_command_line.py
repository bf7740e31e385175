"""The command of a run as it is kept: given again it asks for the same, and it tells of no person."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from jobs.running.command_line import kept_command

KEY = "sk-" + "Ab3dE6gH9jK2mN5pQ8sT1vW4xY7zC0"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(sys, "argv", ["/some/where/run.py"])
    return tmp_path


def words(*arguments: str, complete: bool = True, prompts: bool = True) -> list[str]:
    kept = kept_command(arguments, prompts=prompts)
    assert kept.complete == complete
    found = shlex.split(kept.text)
    assert found[:2] == ["python", "run.py"]
    return found[2:]


def test_it_is_as_given() -> None:
    given = ["-m", "prompts=batch1", "sampling.steps=8,16", "grid={sampling.steps: [8, 16]}", "prompts.lines=[a 'b' c]"]
    assert words(*given) == given
    slashes = ["prompts.lines=[/imagine a house, 1/2]", "model.source=hf:org/name", "model.source=models/sd"]
    assert words(*slashes) == slashes


def test_it_names_the_program_that_was_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/darkroom", "run"])
    assert kept_command(["prompts=batch1"]).text == "darkroom run prompts=batch1"


def test_paths_are_written_from_the_working_folder_on(here: Path) -> None:
    assert words("--config-dir", f"{here}/conf", f"output.dir={here}/out") == [
        "--config-dir",
        "../conf",
        "output.dir=../out",
    ]
    assert words(f"--config-dir={here}/work/conf") == ["--config-dir=conf"]
    assert words(f"model.source={here}/a,{here}/b") == ["model.source=../a,../b"]
    adapters = f"adapters.loras=[{{source: {here}/style.safetensors, weight: 0.5}}]"
    assert words(adapters) == ["adapters.loras=[{source: ../style.safetensors, weight: 0.5}]"]


def test_secrets_are_left_out_and_leave_a_word_that_is_refused() -> None:
    assert words("hub.proxy=http://me:secret@host:1", complete=False) == ["hub.proxy=REMOVED"]
    assert words("hub={proxy: http://me:secret@host:1}", complete=False) == ["hub=REMOVED"]
    assert KEY not in " ".join(words(f"prompts.lines=[my key is {KEY}]", complete=False))
    assert "/home/alice" not in " ".join(words("model.source=/home/alice/sd", complete=False))


def test_prompts_can_be_left_out() -> None:
    given = ["prompts=mine", "prompts.file=lines.txt", "prompts.lines=[a dragon]", "prompts={lines: [a dragon]}"]
    assert words(*given, complete=False, prompts=False) == [*given[:2], "prompts.lines=REMOVED", "prompts=REMOVED"]
