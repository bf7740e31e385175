"""Commands of `darkroom` that explain choices: `explain`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from jobs.config.prompt_argument import quoted
from jobs.terminal import OUTPUT_DIR, OutputDir, print_facts, print_line, printable
from pipeline.errors import ConfigError, ReadError

if TYPE_CHECKING:
    from jobs.planning.choosing import ChosenPrompt

app = typer.Typer()

_OPTIONS = {".csv": "from_csv", ".jsonl": "from_jsonl"}
"""The prompt set that reads a file, by the file's ending."""

_SETTING = re.compile(r"[+~]*[A-Za-z_][\w./@]*=")


Format = Literal["text", "jsonl"]
"""What `explain` prints."""


@app.command()
def explain(
    what: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PROMPT or IMAGE] [key=value]...", help="A prompt or an image, and keys of a run."),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="A file of prompts (.txt, .csv, .jsonl), read as a run reads it.")
    ] = None,
    format: Annotated[Format, typer.Option(help="Output format; jsonl has one object a prompt.")] = "text",
    output_dir: OutputDir = OUTPUT_DIR,
) -> None:
    """Explain which model, LoRAs and settings are chosen for a prompt, and why; of an image, why they were.

    Nothing is made.

    Examples:

        darkroom explain "a lighthouse in a storm, oil painting"

        darkroom explain "a lighthouse" selection.licence=commercial memory=aggressive

        darkroom explain outputs/prompt/20250111_143022_a3f2e9d4.png

        darkroom explain --file prompts.txt --format jsonl
    """
    words = what or []
    settings = [word for word in (words if file else words[1:]) if _SETTING.match(word)]
    others = [word for word in words if word not in settings]
    if file is None and len(others) != 1:
        raise ConfigError("explain: takes one prompt (in quotes) or one image, or --file FILE; then key=value settings")
    if file is not None and others:
        raise ConfigError(f"explain: {others[0]!r}: with --file only key=value settings are taken")
    if file is None and (image := _image(others[0], output_dir)):
        _explain_image(image, output_dir, format)
        return
    prompts = [f"prompt={others[0]}"] if file is None else _prompts_of(file)
    raise typer.Exit(_explained([*prompts, f"output.dir={quoted(str(output_dir))}", *settings], format))


def _image(word: str, output_dir: Path) -> Path | None:
    """The file of the image that a word names, by a path or an id; None for a prompt."""
    from jobs.archive.named_images import image_file, is_id
    from jobs.manifest.output_files import is_image

    try:
        path = image_file(Path(word), output_dir) if is_id(word) or is_image(Path(word)) else Path(word)
        return path if is_image(path) and path.is_file() else None
    except (OSError, ValueError):  # longer than a path can be
        return None


def _prompts_of(file: Path) -> list[str]:
    if not file.is_file():
        raise ConfigError(f"--file {file}: no such file; expected a .txt, .csv or .jsonl with prompts")
    return [f"prompts={_OPTIONS.get(file.suffix.lower(), 'from_file')}", f"prompts.file={quoted(str(file.resolve()))}"]


def _explained(arguments: list[str], format: Format) -> int:
    from jobs.cli.run_py import run_py

    def then(configs: list[dict[str, Any]], folders: list[Path], places: list[str | None]) -> int:
        from jobs.planning.validation import validate

        quiet = [{**config, "dry_run": True} for config in configs]
        batch = validate(quiet, folders, places)
        if not batch.chosen:
            raise ConfigError("nothing is chosen: the model is named; leave it open with model=auto")
        for one in batch.chosen:
            _print(one, format)
        return 0

    return run_py(arguments, then)


def _print(one: ChosenPrompt, format: Format) -> None:
    from jobs.running.choice_report import prompt_values
    from pipeline.selection.choice import read_choice
    from pipeline.selection.explain import paragraph

    if format == "jsonl":
        print_line(json.dumps(prompt_values(one), ensure_ascii=False, allow_nan=False))
        return
    print_line(printable(one.prompt))
    print_facts(_understood(one.selection.get("analysis") or {}))
    print_line(paragraph(read_choice(one.selection["choice"])))


def _understood(analysis: dict[str, Any]) -> list[tuple[str, str]]:
    """What was read from the prompt, as names and values; only what it says."""
    lines = []
    for name, value in analysis.items():
        if name not in ("evidence", "language") and value not in (None, [], ""):
            listed = value if isinstance(value, list) else [value]
            texts = [" ".join(one) if isinstance(one, list) else str(one).replace("_", " ") for one in listed]
            lines.append((name, ", ".join(texts)))
    return lines


def _explain_image(image: Path, output_dir: Path, format: Format) -> None:
    from jobs.archive.show import describe
    from jobs.planning.choosing import ChosenPrompt

    record = describe(image, output_dir).record
    if record is None:
        raise ReadError(f"{image}: was made by another program, which says nothing of choices")
    if record.selection is None:
        raise ReadError(f"{image}: nothing was chosen for it: its model was named")
    prompt = record.prompt_template or record.prompt
    _print(ChosenPrompt("", prompt, record.selection.model_dump(), None), format)
