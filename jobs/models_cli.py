"""Commands of `darkroom models`: what models are on this machine. Nothing here asks the network or loads a model."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs import models_upkeep_cli
from jobs.images_cli import TABLE_LIMIT, Format
from jobs.models_upkeep_cli import Named
from jobs.terminal import Json, print_json, print_line

if TYPE_CHECKING:
    from pipeline.models.registry.records import StoredModel

app = typer.Typer(name="models", no_args_is_help=True, help="Take in, list, find and check models on this machine.")
app.add_typer(models_upkeep_cli.app)


class Kind(StrEnum):
    """What models are for."""

    CHECKPOINT = "checkpoint"
    LORA = "lora"
    VAE = "vae"
    CONTROLNET = "controlnet"
    EMBEDDING = "embedding"
    IP_ADAPTER = "ip_adapter"


class Source(StrEnum):
    """Where models came from."""

    LOCAL = "local"
    HUGGINGFACE = "huggingface"
    CIVITAI = "civitai"


class Sort(StrEnum):
    """Orders of a list."""

    NAME = "name"
    BYTES = "bytes"
    LAST_USED = "last_used"
    ADDED_AT = "added_at"
    KIND = "kind"
    FAMILY = "family"


Limit = Annotated[int | None, typer.Option(min=0, help="At most so many; 0 for all. A table stops at 50 by default.")]
Formatted = Annotated[Format, typer.Option(help="How to print.")]


@app.command("list")
def list_(
    kind: Annotated[Kind | None, typer.Option(help="Only models of this kind.")] = None,
    family: Annotated[str | None, typer.Option(help="Only models of this family, such as `sdxl`.")] = None,
    source: Annotated[Source | None, typer.Option(help="Only models that came from there.")] = None,
    sort: Annotated[Sort, typer.Option(help="The order; sizes and times begin with the largest.")] = Sort.NAME,
    limit: Limit = None,
    format: Formatted = Format.TABLE,
) -> None:
    """List the models that are known.

    Examples:

        darkroom models list --kind lora --family sdxl

        darkroom models list --sort bytes --limit 10

        darkroom models list --format paths
    """
    from jobs.stored_models import known_family
    from pipeline.models.registry.database import Registry
    from pipeline.models.registry.queries import list_models

    with Registry() as registry:
        models = list_models(
            registry,
            kind=kind.value if kind else None,
            family=known_family(family),
            source=source.value if source else None,
            sort=sort.value,
            limit=_limit(limit, format),
        )
    _print(models, format, cut=limit is None)


@app.command()
def search(
    query: Annotated[list[str], typer.Argument(help="Words that must all stand in name, tags, trigger words or so.")],
    limit: Limit = None,
    format: Formatted = Format.TABLE,
) -> None:
    """Find models on this machine by words or parts of words; those that are called so come first.

    Examples:

        darkroom models search ink

        darkroom models search watercolour sdxl --format paths
    """
    from pipeline.models.registry.database import Registry
    from pipeline.models.registry.queries import search_local

    with Registry() as registry:
        models = search_local(registry, " ".join(query), _limit(limit, format))
    _print(models, format, cut=limit is None)


@app.command()
def show(name: Named, as_json: Json = False) -> None:
    """Print what is known of a model.

    Examples:

        darkroom models show ink

        darkroom models show sha256:ebd278174909 --json
    """
    from jobs.found_formats import printable
    from jobs.stored_models import as_lines, as_row, file_row, one_model
    from pipeline.models.registry.database import Registry
    from pipeline.models.registry.storing import files_of

    with Registry() as registry:
        model = one_model(registry, name)
        files = files_of(registry, model)
    if as_json:
        print_json(as_row(model) | {"files": [file_row(file) for file in files]})
        return
    for label, value in as_lines(model, files):
        print_line(f"{label + ':':<17}{printable(value)}")


@app.command()
def identify(file: Annotated[Path, typer.Argument(help="A file of weights.")], as_json: Json = False) -> None:
    """Say which known models a file is, by its hash.

    Examples:

        darkroom models identify download.safetensors
    """
    from jobs.stored_models import as_row, as_table
    from pipeline.models.registry.database import Registry
    from pipeline.models.registry.identifying import identify_file

    with Registry() as registry:
        found = identify_file(registry, file.expanduser())
    groups = {"same": found.same, "same_tensors": found.same_tensors, "claimed": found.claimed}
    if as_json:
        hashes = {"sha256": found.sha256, "tensors_sha256": found.tensor_hash}
        print_json(hashes | {name: [as_row(model) for model in models] for name, models in groups.items()})
        return
    print_line(f"{'sha256:':<17}{found.sha256}")
    heads = ("the same file", "the same weights, other remarks in the header", "claimed to be the same, not checked")
    for head, models in zip(heads, groups.values(), strict=True):
        for line in [f"{head}:", *as_table(models)] if models else []:
            print_line(line)
    if not any(groups.values()):
        typer.echo("no known model has this content", err=True)


@app.command()
def stats(as_json: Json = False) -> None:
    """Count models by kind, family and source, and their bytes.

    Examples:

        darkroom models stats
    """
    from dataclasses import asdict

    from jobs.stored_models import stats_lines
    from pipeline.models.registry.database import Registry
    from pipeline.models.registry.queries import stats

    with Registry() as registry:
        found = stats(registry)
    if as_json:
        print_json(asdict(found))
        return
    for name, value in stats_lines(found):
        print_line(f"{name + ':':<17}{value}")


def _limit(limit: int | None, format: Format) -> int | None:
    return TABLE_LIMIT if limit is None and format is Format.TABLE else limit or None


def _print(models: Sequence[StoredModel], format: Format, *, cut: bool) -> None:
    """A list in the form that was asked for; `cut`: nobody said how long it may be."""
    from jobs import found_formats
    from jobs.stored_models import COLUMNS, as_row, as_table

    match format:
        case Format.JSON:
            print_line(found_formats.as_json([as_row(model) for model in models]))
        case Format.CSV:
            print_line(found_formats.as_csv(COLUMNS, [as_row(model) for model in models]))
        case Format.PATHS:
            for model in models:
                print_line(str(model.path))
        case Format.TABLE if models:
            for line in as_table(models):
                print_line(line)
            if cut and len(models) == TABLE_LIMIT:
                typer.echo(f"the first {TABLE_LIMIT}; --limit 0 shows all", err=True)
        case Format.TABLE:
            typer.echo("nothing found; darkroom models scan FOLDER takes models in", err=True)
