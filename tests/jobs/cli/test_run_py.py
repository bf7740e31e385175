"""`darkroom run` is run.py; a shell completes it as Hydra says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from forked import REPO, program

from pipeline.version import VERSION

COMPLETING = "import sys; sys.argv[0] = 'darkroom'; from jobs.cli.entry import script; script()"


@pytest.mark.slow
def test_it_takes_the_arguments_of_run_py_and_ends_with_its_codes(tmp_path: Path) -> None:
    for arguments in (("prompts=batch1", "--cfg=job"), ("steps=3",), ("prompts=nothing",), ("--version",)):
        as_script = program("run.py", *arguments, cwd=tmp_path, folder=tmp_path)
        as_command = program("darkroom", "run", *arguments, cwd=tmp_path, folder=tmp_path)
        behind_option = program("darkroom", "--verbose", "run", *arguments, cwd=tmp_path, folder=tmp_path)
        assert as_script == as_command == behind_option, arguments


def test_a_run_py_of_the_user_s_is_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text("raise SystemExit('this is mine')\n")
    ended = program("darkroom", "run", "--version", cwd=tmp_path, folder=tmp_path)
    assert (ended.code, ended.out) == (0, f"darkroom {VERSION}\n")


def test_help_says_how_it_was_called(tmp_path: Path) -> None:
    shown = program("darkroom", "run", "--help", cwd=tmp_path, folder=tmp_path)
    assert "  darkroom run prompts=batch1 naming=descriptive" in shown.out and "run.py" not in shown.out


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("darkroom run memory = au", "auto"),
        ("darkroom run seeds = 3 memory = au", "auto"),
        ("darkroom run -m exp", "experiment="),
        ("darkroom ver", "verify"),
    ],
)
def test_bash_completes_it(words: str, found: str, tmp_path: Path) -> None:
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1), "_DARKROOM_COMPLETE": "complete_bash"}
    assert completed(asked, tmp_path) == [found]


def test_zsh_completes_it(tmp_path: Path) -> None:
    asked = {"_TYPER_COMPLETE_ARGS": "darkroom run prompts=batch1 memory=au", "_DARKROOM_COMPLETE": "complete_zsh"}
    assert completed(asked, tmp_path) == ["_arguments '*: :((\"memory=auto\"))'"]


def completed(asked: dict[str, str], folder: Path) -> list[str]:
    env = {**os.environ, "PYTHONPATH": str(REPO), **asked}
    done = subprocess.run([sys.executable, "-c", COMPLETING], cwd=folder, env=env, capture_output=True, text=True)
    assert not done.stderr
    return done.stdout.splitlines()


def test_hydra_s_own_completion_would_be_in_the_way(tmp_path: Path) -> None:
    ended = program("darkroom", "run", "-sc", "install=bash", cwd=tmp_path, folder=tmp_path)
    assert ended.code == 2 and "darkroom --install-completion" in ended.err
