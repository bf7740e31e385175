"""What stands in a run's log, whatever is logged, and how large it may grow."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.engines.log_forwarding import MAX_LIBRARY_TEXTS, Forwarding
from jobs.engines.messages import Logged
from jobs.running import run_log as module
from jobs.running.run_log import RunLog, log_again, run_log

LOG = logging.getLogger("darkroom.run")
KEY = "sk-" + "Ab3dE6gH9jK2mN5pQ8sT1vW4xY7zC0"


@pytest.fixture
def log() -> Iterator[RunLog]:
    with run_log() as log:
        yield log


def test_an_event_is_one_clean_line(log: RunLog, tmp_path: Path) -> None:
    log.begin(tmp_path / "run.log")
    LOG.warning("a\nb\r\nc \x1b[31m %s %s", KEY, "x" * 10_000)
    (line,) = (tmp_path / "run.log").read_text().splitlines()
    assert line[10] == "T" and line[19:35] == "Z WARNING a b c " and "\x1b" not in line
    assert KEY not in line and "[key]" in line and len(line) < 2_100


def test_what_came_before_the_run_had_a_folder_is_there_as_well(log: RunLog, tmp_path: Path) -> None:
    LOG.info("fetched")
    log_again(Logged("darkroom.worker", logging.INFO, "100 % of it", 0.0))
    log.begin(tmp_path / "run.log")
    LOG.debug("not for users")
    LOG.info("made")
    lines = (tmp_path / "run.log").read_text().splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == ["fetched", "100 % of it", "made"]
    assert lines[1].startswith("1970-01-01T00:00:00Z INFO ")


def test_a_long_run_keeps_its_last_lines(log: RunLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LOG_BYTES", 2_000)
    log.begin(tmp_path / "run.log")
    for number in range(1_000):
        LOG.info("event %d", number)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["run.log", *(f"run.log.{n}" for n in range(1, module.BACKUPS + 1))]
    assert all(path.stat().st_size <= 2_000 for path in tmp_path.iterdir())
    assert (tmp_path / "run.log").read_text().endswith("event 999\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_lines_without_room_are_counted_and_dropped(
    log: RunLog, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.log").symlink_to("/dev/full")
    log.begin(tmp_path / "run.log")
    for _ in range(3):
        LOG.info("made")
    assert log.fault == "3 lines of it are lost: No space left on device"
    assert capsys.readouterr().err == ""


def test_a_damaged_manifest_is_told_on_standard_error_too(log: RunLog, capsys: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("darkroom.manifest").warning("part 1 is damaged")
    LOG.warning("only in the log")
    assert capsys.readouterr().err == "part 1 is damaged\n"


def forwarded(hide_texts: bool = False) -> tuple[logging.Logger, list[Logged]]:
    sent: list[Logged] = []
    logger = logging.Logger("diffusers.pipelines")
    logger.addHandler(Forwarding(sent.append, hide_texts=hide_texts))
    return logger, sent


def test_libraries_are_not_let_talk_all_night() -> None:
    logger, sent = forwarded()
    for _ in range(120):
        logger.warning("the prompt %r was cut", "a house")
    assert [one.text.removeprefix("diffusers: the prompt 'a house' was cut") for one in sent] == [
        "",
        " (10 times so far)",
        " (100 times so far)",
    ]
    for number in range(1_000):
        logger.warning("warning %d", number)
    assert len(sent) == 3 + MAX_LIBRARY_TEXTS - 1 and {one.logger for one in sent} == {"darkroom.libraries"}


def test_what_nobody_can_act_on_is_left_out() -> None:
    logger, sent = forwarded()
    logger.warning("Attention backends are an experimental feature and the API may be subject to change.")
    assert sent == []


def test_libraries_do_not_quote_private_prompts() -> None:
    logger, sent = forwarded(hide_texts=True)
    logger.warning("the prompt 'a violet dragon' was cut")
    assert len(sent) == 1 and "dragon" not in sent[0].text and "a warning" in sent[0].text


def test_a_record_that_cannot_be_formatted_costs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    logger, sent = forwarded()
    logger.warning("%d", "no number")
    assert sent == [] and capsys.readouterr().err == "" and sys.exc_info() == (None, None, None)
