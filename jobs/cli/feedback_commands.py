"""Commands of `darkroom` for what people think of images: `rate`, `pick`, `reject`, `tag`, `learned`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.terminal import OUTPUT_DIR, Json, OutputDir, aligned, one_line, print_json, print_line, print_lines
from pipeline.errors import ConfigError
from pipeline.system.units import size_text

if TYPE_CHECKING:
    from jobs.archive.named_images import NamedImage
    from jobs.manifest.ratings_events import RatingEvent

app = typer.Typer()

Images = Annotated[
    list[str], typer.Argument(metavar="IMAGE...", help="Paths, ids, or the first 8 digits of ids.", show_default=False)
]
Note = Annotated[str | None, typer.Option(help="A note, kept with each image; an empty one takes it away.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@app.command()
def rate(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGE... STARS",
            help="Paths, ids, or the first 8 digits of ids, and 1 to 5 stars or `none`; with --next, words to search.",
        ),
    ] = None,
    by_keys: Annotated[
        bool, typer.Option("--next", help="Go through unrated images with keys, on a terminal.")
    ] = False,
    where: Annotated[str | None, typer.Option(help="With --next: a condition, as for `search`.")] = None,
    note: Note = None,
    output_dir: OutputDir = OUTPUT_DIR,
) -> None:
    """Rate images with 1 to 5 stars. The last word counts; `none` takes a rating back.

    `--next` shows path, prompt and settings of one unrated image after the other, first what is least known, and
    waits for a key: 1-5 stars, p pick, x reject, t tag, s skip, u undo, q quit.

    Examples:

        darkroom rate outputs/demo/20250111_143022_a3f2e9d4.png 4

        darkroom rate a3f2e9d4 b7c1d2e3 5 --note "the light"

        darkroom rate --next sunset --where "model = 'demo'"
    """
    from jobs.archive.feedback_words import stars_of
    from jobs.manifest.ratings_events import RATING, RatingEvent

    words = words or []
    if by_keys:
        _rate_next(" ".join(words), where, output_dir)
        return
    if where is not None:
        raise ConfigError(["--where: works with --next"])
    if len(words) < 2:
        raise ConfigError(["expected images and 1 to 5 stars, as in: darkroom rate IMAGE 4"])
    stars = stars_of(words[-1])
    told = f"{stars} of 5" if stars else "not rated any more"
    _say(words[:-1], output_dir, lambda image: [RatingEvent(image.image_id, RATING, stars)], told, note)


def _rate_next(text: str, where: str | None, output_dir: Path) -> None:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError(["--next: needs a terminal for its keys; without one: darkroom rate IMAGE 4"])
    from jobs.archive.rating_queue import RatingQueue
    from jobs.cli.rating_keys import rate_by_keys

    queue = RatingQueue(output_dir, text, where)
    if not len(queue):
        typer.echo("nothing unrated", err=True)
        return
    print_line(f"{rate_by_keys(queue, output_dir)} images answered")


@app.command()
def pick(
    images: Images,
    cell: Annotated[
        bool, typer.Option("--cell", help="Its group are the images of the same settings and prompt, by other seeds.")
    ] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Take the last pick of each back.")] = False,
    note: Note = None,
    output_dir: OutputDir = OUTPUT_DIR,
) -> None:
    """Pick an image as the best of its group: of all images of the same prompt. The others count as compared.

    Examples:

        darkroom pick a3f2e9d4

        darkroom pick outputs/demo/20250111_143022_a3f2e9d4.png --cell

        darkroom pick a3f2e9d4 --undo
    """
    from jobs.archive import feedback
    from jobs.manifest.ratings_events import UNDO, RatingEvent

    if undo:

        def unpicked(image: NamedImage) -> list[RatingEvent]:
            return [RatingEvent(image.image_id, UNDO, feedback.last_pick(image, output_dir))]

        _say(images, output_dir, unpicked, "not picked any more", note)
        return
    group: feedback.Group = "cell" if cell else "prompt"

    def told(said: list[RatingEvent]) -> str:
        return feedback.picked_words(said[0], group)

    _say(images, output_dir, lambda image: [feedback.pick(image, group, output_dir)], told, note)


@app.command()
def reject(
    images: Images,
    undo: Annotated[
        bool, typer.Option("--undo", help="Take it back; a removed image is made again by its run.")
    ] = False,
    note: Note = None,
    output_dir: OutputDir = OUTPUT_DIR,
) -> None:
    """Reject images. Their files stay until `darkroom remove-rejected`.

    Examples:

        darkroom reject a3f2e9d4 --note "six fingers"

        darkroom reject a3f2e9d4 --undo
    """
    from jobs.manifest.ratings_events import NO, REJECT, YES, RatingEvent

    value, told = (NO, "not rejected any more") if undo else (YES, "rejected")
    _say(images, output_dir, lambda image: [RatingEvent(image.image_id, REJECT, value)], told, note)


@app.command(context_settings={"ignore_unknown_options": True})
def tag(
    words: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE... +TAG... -TAG...", help="Images, tags to add, tags to take away."),
    ],
    note: Note = None,
    output_dir: OutputDir = OUTPUT_DIR,
) -> None:
    """Add tags of your own to images and take them away; `--where "list_contains(user_tags, 'sea')"` finds them.

    Examples:

        darkroom tag a3f2e9d4 b7c1d2e3 +sea +keep -draft

        darkroom tag a3f2e9d4 --note "for the cover"
    """
    from jobs.archive.feedback_words import split_tags, tag_events

    images, tags = split_tags(words)
    if not images:
        raise ConfigError(["expected images, as in: darkroom tag IMAGE +sea -draft"])
    if not tags and note is None:
        raise ConfigError(["expected tags, as in: darkroom tag IMAGE +sea -draft"])
    _say(images, output_dir, lambda image: tag_events(image.image_id, tags), " ".join(tags) or "noted", note)


def _say(
    named: Sequence[str],
    output_dir: Path,
    events: Callable[[NamedImage], list[RatingEvent]],
    told: str | Callable[[list[RatingEvent]], str],
    note: str | None = None,
) -> None:
    """Write the events of each image and a note, and print a line when they are on the disk."""
    from jobs.archive.feedback_words import note_events
    from jobs.archive.named_images import named_images
    from jobs.manifest.ratings import RatingWriter

    images = named_images(named, output_dir)
    made = [(image, [*events(image), *note_events(image.image_id, note)]) for image in images]
    with RatingWriter(output_dir) as writer:
        writer.append(event for _, said in made for event in said)
    for image, said in made:
        print_line(one_line(f"{output_dir / image.path}: {told if isinstance(told, str) else told(said)}"))


@app.command()
def remove_rejected(yes: Yes = False, output_dir: OutputDir = OUTPUT_DIR) -> None:
    """Delete the files of rejected images. It asks first; no run makes them again.

    `darkroom reject IMAGE --undo` lets the next run make one again. Rows and ratings stay.

    Examples:

        darkroom remove-rejected

        darkroom remove-rejected --output-dir /data/postcards --yes
    """
    from jobs.archive import feedback

    others: list[str] = []
    rejected = list(feedback.rejected_images(output_dir, others))
    for line in others:
        print_line(one_line(f"stays: {line}"))
    if not rejected:
        print_line("no rejected images to remove")
        return
    size = size_text(sum(one.size_bytes for one in rejected))
    if not yes:
        for one in rejected[:_SHOWN]:
            print_line(one_line(str(one.file)))
        if len(rejected) > _SHOWN:
            print_line(f"and {len(rejected) - _SHOWN} more")
        _ask(f"Delete {len(rejected)} rejected images ({size})?")
    feedback.remove(rejected, output_dir)
    print_line(f"{len(rejected)} rejected images removed, {size} freed")


_SHOWN = 10


def _ask(question: str) -> None:
    """Go on only after a yes."""
    if not sys.stdin.isatty():
        raise ConfigError([f"{question} Nobody is there to ask; --yes answers"])
    typer.confirm(question, abort=True)


@app.command()
def learned(
    as_json: Json = False,
    export: Annotated[Path | None, typer.Option(help="Write the statistics to a file, as JSON.")] = None,
    reset: Annotated[
        bool, typer.Option("--reset", help="Count from here on anew; ratings stay. It asks first.")
    ] = False,
    yes: Yes = False,
    output_dir: OutputDir = OUTPUT_DIR,
) -> None:
    """Show what was learned from ratings of models, LoRAs, schedulers and guidance: from how many, to what effect.

    An effect is added to the score of a choice, at most 1.5 points up or down.

    Examples:

        darkroom learned

        darkroom learned --export learned.json
    """
    from jobs.archive import learned as learning
    from jobs.manifest.ratings import RatingWriter
    from jobs.manifest.ratings_events import RESET, RatingEvent

    if reset:
        if not yes:
            _ask("Forget what was learned so far? The ratings themselves stay.")
        with RatingWriter(output_dir) as writer:
            writer.append([RatingEvent("", RESET)])
        print_line("what was learned counts anew from here on")
        return
    found = learning.learned(output_dir)
    if export is not None:
        learning.export(found, export)
        print_line(f"{export}: {len(found.preferences.statistics)} statistics, hash {found.preferences.hash}")
    elif as_json:
        print_json(learning.as_json(found))
    elif not found.preferences:
        typer.echo("nothing learned yet; darkroom rate --next begins", err=True)
    else:
        rows = [(one.kind, one.name, one.look, f"{one.ratings:.1f}", f"{one.effect:+.2f}") for one in found.effects]
        print_lines(aligned([("kind", "name", "look", "ratings", "effect"), *rows], numeric={3, 4}))
        print_line(f"from {found.pictures} rated images; {found.preferences.hash[:12]}")
