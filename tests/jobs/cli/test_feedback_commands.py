"""`darkroom rate`, `pick`, `reject`, `tag`, `remove-rejected`, `learned`: what people type and see."""

from __future__ import annotations

import csv
import io
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from manifest_rows import done_of, put_image, write_part
from recorded_images import save_image

from jobs.archive import learned, rating_queue
from jobs.manifest import preferences
from jobs.manifest.journal import Journal
from jobs.manifest.ratings import RatingWriter
from jobs.manifest.ratings_events import RatingEvent
from jobs.manifest.ratings_view import read_feedback
from jobs.manifest.schema import Feedback
from pipeline.learning.preferences import Preferences

ROOT = Path(__file__).parents[3]
TERMINAL = Path(__file__).with_name("rating_terminal.py")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ids(tmp_path: Path) -> list[str]:
    rows = [done_of(n, model=f"model{n}", prompt="a boat\x1b[31m") for n in range(3)]
    for row in rows:
        put_image(tmp_path, row)
    write_part(tmp_path, "a", rows)
    return [str(row["image_id"]) for row in rows]


@pytest.fixture(autouse=True)
def one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (preferences, rating_queue):
        monkeypatch.setattr(module, "look_by_rules", lambda prompt: "plain")


def said(output_dir: Path, image_id: str) -> Feedback:
    return read_feedback(output_dir)[image_id]


@pytest.mark.slow
def test_stars_tags_picks_and_notes_are_told_and_found(tmp_path: Path, ids: list[str], darkroom: Run) -> None:
    folder = ("--output-dir", tmp_path)
    code, out, err = darkroom("rate", ids[0], ids[1][:8], "4", "--note", "the light", *folder)
    assert (code, err) == (0, "") and [line.rpartition(": ")[2] for line in out.splitlines()] == ["4 of 5"] * 2
    assert darkroom("tag", tmp_path / "study/0002.png", "+sea", "+keep", "-draft", *folder)[0] == 0
    assert "better than 2 others of its prompt" in darkroom("pick", ids[2], *folder)[1]
    assert darkroom("rate", ids[1], "none", *folder)[0] == 0
    assert darkroom("tag", ids[2], "-keep", "--note", "", *folder)[0] == 0
    columns = "seed,rating,picked,user_tags,note"
    _, out, _ = darkroom("search", "--columns", columns, "--sort", "seed", "--format", "csv", *folder)
    assert list(csv.reader(io.StringIO(out)))[1:] == [
        ["0", "4", "False", "[]", "the light"],
        ["1", "", "False", "[]", "the light"],
        ["2", "", "True", '["sea"]', ""],
    ]
    _, out, _ = darkroom("search", "--where", "rating >= 4", "--format", "json", "--columns", "*", *folder)
    (found,) = json.loads(out)
    assert {"rating": 4, "rejected": False, "user_tags": [], "removed": False}.items() <= found.items()
    assert darkroom("pick", ids[2], "--undo", "--note", "too dark", *folder)[0] == 0
    assert (said(tmp_path, ids[2])["picked"], said(tmp_path, ids[2])["note"]) == (False, "too dark")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("rate", "ID"), "1 to 5 stars"),
        (("rate", "ID", "6"), "expected 1 to 5 stars"),
        (("rate", "ID", "\u0664"), "expected 1 to 5 stars"),
        (("rate", "ID", "4", "--where", "steps = 8"), "works with --next"),
        (("rate", "ID", "4", "--note", "x" * 3000), "at most 2000"),
        (("rate", "nowhere.png", "4"), "no such image"),
        (("tag", "ID"), "expected tags"),
        (("tag", "+sea"), "expected images"),
        (("tag", "ID", "+"), "no tag"),
        (("tag", "ID", "+a\nb"), "no tag"),
        (("pick", "ID", "--undo"), "was not picked"),
        (("rate", "--next"), "needs a terminal"),
        (("learned", "--reset"), "--yes answers"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_writes_nothing(
    tmp_path: Path, ids: list[str], arguments: tuple[str, ...], why: str, darkroom: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    words = [ids[0] if word == "ID" else word for word in arguments]
    code, out, err = darkroom(*words, "--output-dir", tmp_path)
    assert code == 2 and out == "" and why in err and err.count("\n") == 1
    assert read_feedback(tmp_path) == {}


def test_show_tells_what_was_said(tmp_path: Path, darkroom: Run) -> None:
    with Journal(tmp_path) as journal:
        rows = [save_image(journal, tmp_path, n, profile="private" if n else "full") for n in range(2)]
    folder = ("--output-dir", tmp_path)
    images = [tmp_path / str(row["path"]) for row in rows]
    before = json.loads(darkroom("show", images[0], "--json", *folder)[1])
    darkroom("rate", *images, "3", "--note", "soft", *folder)
    darkroom("tag", images[0], "+sea", *folder)
    _, out, _ = darkroom("show", images[0], *folder)
    assert {"rating:          3 of 5", "your tags:       sea", "note:            soft"} <= set(out.splitlines())
    assert json.loads(darkroom("show", images[0], "--json", *folder)[1]) == {
        **before,
        "feedback": {
            "rating": 3, "picked": False, "rejected": False, "removed": False, "user_tags": ["sea"], "note": "soft",
        },
    }  # fmt: skip
    _, out, _ = darkroom("show", *images, "--format", "csv", *folder)
    assert [(row["rating"], row["user_tags"]) for row in csv.DictReader(io.StringIO(out))] == [("3", "sea"), ("3", "")]


def test_removing_what_was_rejected_asks_first(
    tmp_path: Path, ids: list[str], darkroom: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ("--output-dir", tmp_path)
    assert darkroom("remove-rejected", *folder)[1] == "no rejected images to remove\n"
    darkroom("reject", *ids[:2], *folder)
    darkroom("reject", ids[1], "--undo", *folder)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    code, _, err = darkroom("remove-rejected", *folder)
    assert code == 2 and "--yes answers" in err and (tmp_path / "study/0000.png").exists()
    code, out, _ = darkroom("remove-rejected", "--yes", *folder)
    assert code == 0 and out.startswith("1 rejected images removed")
    assert sorted(path.name for path in (tmp_path / "study").iterdir()) == ["0001.png", "0002.png"]
    code, out, _ = darkroom("verify", *folder)
    assert code == 0 and "note: rejected, and removed: study/0000.png" in out


@pytest.mark.slow
def test_what_was_learned_is_shown_exported_and_reset(tmp_path: Path, ids: list[str], darkroom: Run) -> None:
    folder = ("--output-dir", tmp_path)
    assert darkroom("learned", *folder) == (0, "", "nothing learned yet; darkroom rate --next begins\n")
    darkroom("rate", ids[0], "5", *folder)
    darkroom("rate", ids[1], "1", *folder)
    _, out, _ = darkroom("learned", *folder)
    assert "model0" in out and "from 2 rated images" in out
    content = json.loads(darkroom("learned", "--json", *folder)[1])
    effects = {one["name"]: one["effect"] for one in content["learned"] if one["kind"] == "model"}
    assert effects["model0"] > effects["model1"] and content["images"] == 2
    file = tmp_path / "learned.json"
    assert darkroom("learned", "--export", file, *folder)[0] == 0
    assert (
        Preferences.from_json(file.read_bytes()).hash == content["hash"] == learned.learned(tmp_path).preferences.hash
    )
    assert darkroom("learned", "--reset", "--yes", *folder)[0] == 0
    assert json.loads(darkroom("learned", "--json", *folder)[1])["learned"] == []
    assert said(tmp_path, ids[0])["rating"] == 5, "the ratings stay"


class Terminal:
    """`darkroom rate --next` on a terminal of its own."""

    def __init__(self, output_dir: Path, *arguments: str) -> None:
        import pty

        self._fd, child = pty.openpty()
        command = [sys.executable, str(TERMINAL), "rate", "--next", *arguments, "--output-dir", str(output_dir)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "dumb"}
        self.process = subprocess.Popen(
            command, stdin=child, stdout=child, stderr=child, env=environment, start_new_session=True
        )
        os.close(child)
        self.shown = ""

    def until(self, text: str) -> None:
        """Read until the text is shown, from what was not waited for yet on."""
        give_up_at = time.monotonic() + 60
        while text not in self.shown:
            assert time.monotonic() < give_up_at, self.shown
            if select.select([self._fd], [], [], 1)[0]:
                try:
                    self.shown += os.read(self._fd, 4096).decode(errors="replace")
                except OSError:  # it has ended
                    break
        assert text in self.shown
        self.shown = self.shown.partition(text)[2]

    def type(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._fd)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def start(*arguments: str) -> Terminal:
        opened.append(Terminal(tmp_path, *arguments))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no pseudo-terminal")
def test_pictures_are_rated_with_keys(tmp_path: Path, ids: list[str], terminal: Callable[..., Terminal]) -> None:
    keys = terminal()
    keys.until("3 unrated images")
    keys.until("[1/3]")
    keys.until("a boat\ufffd[31m")  # no prompt drives the terminal
    keys.until("model0, 8 steps, guidance 3, DPM++ 2M, seed 0, 64 x 64")
    keys.type("z")
    keys.until("1-5 stars")
    keys.type("4")
    keys.until("4 of 5")
    keys.until("[2/3]")
    keys.until("seed 1")
    keys.type("u")
    keys.until("[1/3]")
    keys.until("seed 0")
    keys.type("2")
    keys.until("[2/3]")
    keys.until("seed 1")
    keys.type("t")
    keys.until("tags")
    keys.type("+sea keep\r")
    keys.type("p")
    keys.until("better than 2 others")
    keys.until("seed 2")
    keys.type("x")
    keys.until("3 images answered")
    assert keys.process.wait(30) == 0
    assert said(tmp_path, ids[0])["rating"] == 2
    assert (said(tmp_path, ids[1])["picked"], said(tmp_path, ids[1])["user_tags"]) == (True, ["keep", "sea"])
    assert said(tmp_path, ids[2])["rejected"]
    again = terminal()
    again.until("nothing unrated")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no pseudo-terminal")
def test_what_was_answered_before_a_kill_is_kept(
    tmp_path: Path, ids: list[str], terminal: Callable[..., Terminal]
) -> None:
    killed = terminal("boat", "--where", "seed < 2")
    killed.until("2 unrated images")
    killed.until("seed 0")
    killed.type("5")
    killed.until("seed 1")
    killed.process.send_signal(signal.SIGKILL)
    killed.process.wait()
    assert said(tmp_path, ids[0])["rating"] == 5
    with RatingWriter(tmp_path) as writer:
        writer.append([RatingEvent(ids[2], "rating", "1")])
    left = terminal()
    left.until("1 unrated images")
    left.until("seed 1")
    left.type("q")
    left.until("0 images answered")
    assert left.process.wait(30) == 0
