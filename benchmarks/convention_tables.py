"""The tables of docs/choosing-reference.md: what is read, how it is scored, what is added to texts, usual settings.

    python -m benchmarks.convention_tables

Nothing is measured: these are data files of `pipeline/`, in a form to be read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.prompting.analysis import AXES
from pipeline.prompting.conventions import conventions, lineage, read_data
from pipeline.weights.families import FAMILIES

_TEXTS = {
    "prefix": "quality words before",
    "suffix": "quality words behind",
    "contradict": "opposite of the medium",
    "defects": "negative: defects",
    "quality": "negative: quality",
}
_SETTINGS = {"steps": "steps", "guidance_scale": "guidance", "scheduler": "scheduler"}


def sections() -> dict[str, Callable[[], Iterator[str]]]:
    """What makes the table of each section of the page, by its heading."""
    return {
        "What is read from a prompt": _axes,
        "How a candidate is scored": _features,
        "Words by convention": _words,
        "The opposite of a medium": _opposites,
        "Steps, guidance and scheduler": _settings,
        "Few-step models": _few_steps,
        "Drafts and high quality": _quality,
        "Sizes by family": _sizes,
        "Formats": _formats,
    }


def _table(*head: str) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"


def _row(*cells: object) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def _axes() -> Iterator[str]:
    yield from _table("axis", "values")
    for axis, values in AXES.items():
        yield _row(f"`{axis}`", " ".join(f"`{value}`" for value in values))


def _features() -> Iterator[str]:
    """The features with their weights, and what the data file says beside each."""
    yield from _table("feature", "points at most", "for")
    said = (Path(__file__).parents[1] / "pipeline" / "selection" / "features.toml").read_text(encoding="utf-8")
    weights = said.partition("[weights]\n")[2].partition("\n\n")[0]
    for name, points, what in re.findall(r"^(\w+) = ([\d.]+) *# (.*)$", weights, re.MULTILINE):
        yield _row(f"`{name}`", points, what)


def _words() -> Iterator[str]:
    yield from _table("convention", "what", "words", "source")
    for name in conventions():
        own = read_data("conventions.toml")[name]
        above = lineage(name)[1:]
        label = f"{name}, else as {above[0]}" if above else name
        yield from _rows(label, own)
        for family, table in own.get("family", {}).items():
            yield from _rows(f"{name}, {FAMILIES[family].label}", table)


def _rows(label: str, table: Mapping[str, Any]) -> Iterator[str]:
    for key, what in _TEXTS.items():
        if key in table:
            value = table[key]
            said = {True: "yes", False: "no"}[value] if isinstance(value, bool) else ", ".join(value) or "none"
            yield _row(label, what, said, table["source"][key])


def _opposites() -> Iterator[str]:
    yield from _table("prompt", "negative", "source")
    for group in read_data("negatives.toml")["opposites"].values():
        yield _row(", ".join(group["values"]), ", ".join(group["words"]), group["source"])


def _settings() -> Iterator[str]:
    data = read_data("settings.toml")
    groups = [(FAMILIES[name].label, table) for name, table in data["family"].items()]
    groups += list(data["convention"].items())
    groups += [(f"{name}, v-prediction", table) for name, table in data["v_prediction"].items()]
    yield from _of_settings("family or convention", groups)


def _few_steps() -> Iterator[str]:
    groups = [(FAMILIES[name].label, table) for name, table in read_data("settings.toml")["distilled"].items()]
    yield from _of_settings("family", groups)


def _of_settings(head: str, groups: Sequence[tuple[str, Mapping[str, Any]]]) -> Iterator[str]:
    yield from _table(head, *_SETTINGS.values(), "sources")
    for label, table in groups:
        sources = "; ".join(f"{what}: {table['source'][key]}" for key, what in _SETTINGS.items() if key in table)
        yield _row(label, *(table.get(key, "the model's") for key in _SETTINGS), sources)


def _quality() -> Iterator[str]:
    yield from _table("quality", "steps times", "at least", "at most", "source")
    for name, rule in read_data("settings.toml")["quality"].items():
        yield _row(name, rule["factor"], rule["least"], rule["most"], rule["source"]["factor"])


def _sizes() -> Iterator[str]:
    yield from _table("family", "sizes, and turned", "source")
    for name, table in read_data("sizes.toml")["family"].items():
        sizes = ", ".join(f"{width} x {height}" for width, height in table["buckets"])
        yield _row(FAMILIES[name].label, sizes, table["source"]["buckets"])


def _formats() -> Iterator[str]:
    data = read_data("sizes.toml")
    yield from _table("prompt", "width to height", "source")
    for name, (width, height) in ((key, value) for key, value in data["proportions"].items() if key != "source"):
        yield _row(name, f"{width}:{height}", data["proportions"]["source"][name])
    for one in data["formats"]:
        width, height = one["proportion"]
        yield _row(f"{one['aspect']}: {', '.join(one['words'])}", f"{width}:{height}", one["source"]["proportion"])


if __name__ == "__main__":
    for heading, table in sections().items():
        print(f"## {heading}\n")
        print("\n".join(table()), end="\n\n")
