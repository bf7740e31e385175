"""What a person says of pictures in the gallery, checked, as events: they are appended as those of all other ways."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from jobs.archive.feedback import last_pick, pick
from jobs.archive.feedback_words import note_events, stars_of, tag_events
from jobs.archive.named_images import NamedImage
from jobs.gallery.views import Views
from jobs.manifest.ratings import RatingWriter
from jobs.manifest.ratings_events import MAX_NOTE, NO, RATING, REJECT, UNDO, YES, RatingEvent
from pipeline.errors import ConfigError
from pipeline.ranges import STRICT

Body = TypeVar("Body", bound=BaseModel)

SOURCE = "gallery"

ImageId = Annotated[str, Field(pattern="^[0-9a-f-]{36}$")]

MAX_IMAGES = 200


class Mark(BaseModel):
    """The body of a request: `value` is 1 to 5 or `none`, `yes` or `no`, tags as `+a`, `-b`, or a note."""

    model_config = STRICT

    images: Annotated[list[ImageId], Field(min_length=1, max_length=MAX_IMAGES)]
    kind: Literal["rating", "pick", "reject", "tag", "note"]
    value: Annotated[str, Field(max_length=MAX_NOTE)]


def say(mark: Mark, views: Views, output_dir: Path) -> int:
    """Append what was said; it is on the disk when this returns, of how many pictures. Raises `ConfigError`."""
    known = views.pictures(mark.images)
    if unknown := [one for one in mark.images if one not in known]:
        raise ConfigError(f"{unknown[0]}: no such picture")
    images = [NamedImage(one, known[one]["job_id"], known[one]["path"]) for one in dict.fromkeys(mark.images)]
    events = [event for image in images for event in _events(mark, image, output_dir)]
    with RatingWriter(output_dir) as writer:
        writer.append(events)
    return len(images)


def _events(mark: Mark, image: NamedImage, output_dir: Path) -> list[RatingEvent]:
    if mark.kind == "rating":
        return [RatingEvent(image.image_id, RATING, stars_of(mark.value), source=SOURCE)]
    if mark.kind == "tag":
        words = mark.value.split()
        if any(word[0] not in "+-" for word in words) or not words:
            raise ConfigError("tag: expected tags as +sea or -draft")
        return tag_events(image.image_id, words, SOURCE)
    if mark.kind == "note":
        return note_events(image.image_id, mark.value, SOURCE)
    if mark.value not in (YES, NO):
        raise ConfigError(f"{mark.kind}: expected {YES} or {NO}")
    if mark.kind == "reject":
        return [RatingEvent(image.image_id, REJECT, mark.value, source=SOURCE)]
    if mark.value == NO:
        return [RatingEvent(image.image_id, UNDO, last_pick(image, output_dir), source=SOURCE)]
    return [pick(image, "prompt", output_dir, SOURCE)]


def read_body(kind: type[Body], body: bytes) -> Body:
    """A JSON body as a model. Raises `ConfigError` with the first fault."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(step) for step in first["loc"]) or "request"
        raise ConfigError(f"{place}: {first['msg']}") from None
