"""Mode `assisted` on a real terminal: what it shows, and what the keys do."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from forked import TIMEOUT_S, ForkedProcess, program
from test_chosen_models import CARDS, add_model

from jobs.running.assisted import Assistant

PHOTO = "photo of an old fisherman"


class Terminal:
    """A run of the program on a terminal of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._own, self._other = pty.openpty()
        terminal = Path(os.ttyname(self._other))
        self._process = ForkedProcess(
            "run.py", arguments, cwd=folder, env=os.environ, out=terminal, err=terminal, stdin=terminal
        )
        self.shown = ""

    def until(self, text: str) -> None:
        end = time.monotonic() + TIMEOUT_S
        while text not in self.shown:
            assert time.monotonic() < end, f"never shown: {text!r}\n{self.shown}"
            if select.select([self._own], [], [], 0.2)[0]:
                self.shown += os.read(self._own, 65536).decode(errors="replace")
            elif self._process.poll() is not None:
                assert text in self.shown, self.shown

    def answer(self, line: str) -> None:
        self.shown = ""
        os.write(self._own, f"{line}\n".encode())

    def end(self) -> int:
        return self._process.wait(TIMEOUT_S)

    def close(self) -> None:
        self._process.kill()
        os.close(self._own)
        os.close(self._other)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """Starts the program in the test's folder; it is gone when the test ends."""
    opened: list[Terminal] = []

    def start(*arguments: str) -> Terminal:
        opened.append(Terminal(tmp_path, *arguments))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


@pytest.mark.slow
def test_a_choice_is_shown_changed_and_accepted(
    tiny: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    terminal: Callable[..., Terminal],
) -> None:
    monkeypatch.setenv("DARKROOM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name, (family, tags, text) in CARDS.items():
        add_model(tmp_path / "models", name, tiny(family), tags, text)
    sizes = ("sampling.steps=1", "sampling.width=32", "sampling.height=32", "engine.device=cpu")
    rest = ("selection=assisted", "selection.analysis=rules", *sizes)
    quits = terminal(f"prompt={PHOTO}", *rest)
    quits.until("[q] quit: ")
    assert "photo_xl" in quits.shown and "'photo' is asked for" in quits.shown and PHOTO in quits.shown
    quits.answer("q")
    assert quits.end() == 4
    assert not list((tmp_path / "outputs").glob("**/*.png"))

    changes = terminal(f"prompt={PHOTO}", *rest)
    changes.until("[q] quit: ")
    changes.answer("c")
    changes.until("which model?")
    assert "1  brush" in changes.shown
    changes.answer("1")
    changes.until("[q] quit: ")
    assert "brush" in changes.shown and "photo_xl" not in changes.shown.split("runner-up")[1].split("settings")[0]
    changes.answer("")
    changes.until("1 made")
    assert changes.end() == 0
    (image,) = (tmp_path / "outputs").glob("prompt/*.png")
    from pipeline import read_record

    record = read_record(image)
    assert record.model.name == "brush" and record.selection is not None
    assert record.selection.choice["model"]["source"] == "asked"
    shutil.rmtree(tmp_path / "models")


CHOICE = {
    "model": {"chosen": "one", "runner_up": None, "reasons": []},
    "loras": [{"chosen": name, "weight": 0.8, "reasons": []} for name in ("ink", "paper")],
    "sampling": {},
    "prompt": {"added": []},
    "negative_prompt": {"added": []},
}


def test_loras_are_dropped_and_all_that_follows_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    answers = iter(["d", "2", "what", "a"])
    assistant = Assistant(lambda _question: next(answers))
    dropped = assistant.decide(CHOICE, ["a house"], ["two"])
    assert dropped.dropped == ("paper",) and not dropped.accepts
    assert assistant.decide(CHOICE, ["a house"], ["two"]).accepts
    assert assistant.decide(CHOICE, ["a boat"], []).accepts and list(answers) == [], "nothing more is asked"


def test_everything_is_accepted_without_a_terminal_where_that_is_said(tmp_path: Path) -> None:
    words = ("prompt=a red house", "selection=assisted", "selection.accept=true", "dry_run=json")
    ended = program("run.py", *words, cwd=tmp_path, folder=tmp_path)
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["choices"][0]["choice"]["model"]["chosen"] == "demo"
