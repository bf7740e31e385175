"""Rating one picture after the other with single keys, on a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jobs.archive.feedback import pick, picked_words
from jobs.archive.feedback_words import tag_events
from jobs.archive.named_images import NamedImage
from jobs.archive.rating_queue import RatingQueue
from jobs.archive.search import Found
from jobs.cli.single_keys import END_OF_INPUT, read_key, single_keys, whole_lines
from jobs.manifest.ratings import RatingWriter
from jobs.manifest.ratings_events import RATING, REJECT, STARS, UNDO, YES, RatingEvent
from jobs.terminal import complain, one_line, print_line
from pipeline.errors import ConfigError

KEYS = "1-5 stars, p pick, x reject, t tag, s skip, u undo, q quit"

_SOURCE = "queue"


@dataclass(frozen=True, slots=True)
class _Answered:
    """An image and what was said of it."""

    row: Found
    said: tuple[RatingEvent, ...]


def rate_by_keys(queue: RatingQueue, output_dir: Path) -> int:
    """Ask for each image of the queue until it is empty or `q` is typed; returns how many were answered.

    Each answer is on the disk before the next image is shown.
    """
    answered: list[_Answered] = []
    total, back = len(queue), list[Found]()
    with RatingWriter(output_dir) as writer, single_keys():
        print_line(f"{total} unrated images; {KEYS}")
        while row := back.pop() if back else next(queue, None):
            _show(row, output_dir, len(answered) + 1, total)
            said = _answer(row, output_dir, writer)
            if said == "quit":
                break
            if said != "undo":
                answered.append(_Answered(row, said))
                continue
            back.append(row)
            if answered:
                last = answered.pop()
                _undo(last.said, writer)
                back.append(last.row)
            else:
                print_line("  nothing to undo")
    return sum(bool(one.said) for one in answered)


def _show(row: Found, output_dir: Path, place: int, total: int) -> None:
    loras = f" with {', '.join(row['loras'])}" if row["loras"] else ""
    print_line("")
    print_line(one_line(f"[{place}/{total}] {output_dir / row['path']}"))
    print_line(one_line(f"  {row['prompt']}"))
    print_line(
        one_line(
            f"  {row['model']}{loras}, {row['steps']} steps, guidance {row['guidance_scale']:g}, {row['scheduler']}, "
            f"seed {row['seed']}, {row['width']} x {row['height']}"
        )
    )


def _answer(row: Found, output_dir: Path, writer: RatingWriter) -> tuple[RatingEvent, ...] | Literal["undo", "quit"]:
    """What was said of an image; `undo` is meant for the one before. Asks again for other keys, and after tags."""
    image_id, said = row["image_id"], list[RatingEvent]()
    while True:
        key = read_key().lower()
        if key.isdecimal() and int(key) in STARS:
            print_line(f"  {key} of 5")
            events = [RatingEvent(image_id, RATING, key, source=_SOURCE)]
        elif key == "p":
            events = [pick(NamedImage(image_id, row["job_id"], row["path"]), "prompt", output_dir, _SOURCE)]
            print_line(f"  {picked_words(events[0], 'prompt')}")
        elif key == "x":
            print_line("  rejected")
            events = [RatingEvent(image_id, REJECT, YES, source=_SOURCE)]
        elif key == "t":
            said += _tagged(image_id, writer)
            continue
        elif key == "s":
            print_line("  skipped")
            return tuple(said)
        elif key == "u":
            if not said:
                return "undo"
            _undo(said, writer)
            said.clear()
            print_line("  tags undone")
            continue
        elif key in ("q", END_OF_INPUT):
            return "quit"
        else:
            print_line(f"  {KEYS}")
            continue
        return (*said, *writer.append(events))


def _undo(said: Sequence[RatingEvent], writer: RatingWriter) -> None:
    writer.append(RatingEvent(one.image_id, UNDO, one.uuid, source=_SOURCE) for one in said)


def _tagged(image_id: str, writer: RatingWriter) -> list[RatingEvent]:
    words: list[str] = []
    with whole_lines(), contextlib.suppress(EOFError):
        words = input("  tags, as +a -b: ").split()
    try:
        return writer.append(tag_events(image_id, [word if word[0] in "+-" else f"+{word}" for word in words], _SOURCE))
    except ConfigError as error:
        complain(f"  {error}")
        return []
