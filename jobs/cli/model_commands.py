"""Commands of `darkroom models` about known models: `list`, `identify`, `stats`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from jobs.cli import hub_commands, upkeep_commands
from jobs.cli.image_commands import Formatted, Limit
from jobs.cli.model_options import OfKind, Settings, most_of, print_found
from jobs.config.hub_access import transport_of_this_machine
from jobs.terminal import Json, complain, print_facts, print_json, print_line, print_lines
from pipeline.registry.records import Source

app = typer.Typer(name="models", no_args_is_help=True, help="Scan folders for models; find, download and verify them.")
for part in (hub_commands, upkeep_commands):
    app.add_typer(part.app)


Sort = Literal["name", "bytes", "last_used", "added_at", "kind", "family"]


@app.command("list")
def list_(
    kind: OfKind = None,
    family: Annotated[str | None, typer.Option(help="Only models of this family, such as `sdxl`.")] = None,
    source: Annotated[Source | None, typer.Option(help="Only models from this source.")] = None,
    sort: Annotated[Sort, typer.Option(help="The order; sizes and times begin with the largest.")] = "name",
    limit: Limit = None,
    format: Formatted = "table",
) -> None:
    """List the known models.

    Examples:

        darkroom models list --kind lora --family sdxl

        darkroom models list --sort bytes --limit 10

        darkroom models list --format paths
    """
    from jobs.cli.stored_models import COLUMNS, as_row, as_table, known_family, left_over_text
    from pipeline.registry.database import Registry
    from pipeline.registry.leftovers import leftovers
    from pipeline.registry.queries import list_models

    with Registry() as registry:
        models = list_models(
            registry,
            kind=kind,
            family=known_family(family),
            source=source,
            sort=sort,
            limit=most_of(limit, format),
        )
        left = leftovers(registry) if format == "table" else []
    rows = [as_row(model) for model in models]
    print_found(rows, COLUMNS, as_table(models), (model.path for model in models), format, limit)
    if left:
        complain(f"left over: {left_over_text(len(left), sum(one.bytes for one in left))}")


@app.command()
def identify(
    file: Annotated[Path, typer.Argument(help="A file of weights.")],
    settings: Settings = None,
    ask_civitai: Annotated[
        bool, typer.Option("--ask-civitai", help="Ask CivitAI if the file is no known model; sends its hash.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Say which known models a file is, by its hash.

    Examples:

        darkroom models identify download.safetensors

        darkroom models identify download.safetensors --ask-civitai
    """
    from jobs.cli.hub_models import card_lines, card_row
    from jobs.cli.stored_models import as_row, as_table
    from pipeline.hubs import find_or_fetch
    from pipeline.hubs.results import Ok
    from pipeline.registry.database import Registry

    transport = transport_of_this_machine(settings or ())
    with Registry() as registry:
        identity = find_or_fetch.identify(file, registry, transport if ask_civitai else None)
    found, said = identity.here, identity.hub
    groups = {"same": found.same, "same_tensors": found.same_tensors, "claimed": found.claimed}
    known = said.value if isinstance(said, Ok) else None
    if as_json:
        hashes = {"sha256": found.sha256, "tensors_sha256": found.tensor_hash}
        hub = {"civitai": card_row(known) if known else None, "civitai_said": said.kind} if said else {}
        print_json(hashes | {name: [as_row(model) for model in models] for name, models in groups.items()} | hub)
        return
    print_facts([("sha256", found.sha256)])
    heads = ("the same file", "the same weights, other metadata in the header", "claimed to be the same, not verified")
    for head, models in zip(heads, groups.values(), strict=True):
        print_lines([f"{head}:", *as_table(models)] if models else [])
    if known:
        print_line("on CivitAI:")
        print_facts(card_lines(known))
    elif said:
        complain(f"CivitAI: {said.say()}")
    if not any(groups.values()):
        complain("no known model has this content")
    if ask_civitai and said is None:
        complain("the file is a known model, so CivitAI was not asked")


@app.command()
def stats(as_json: Json = False) -> None:
    """Count models by kind, family and source, and sum up their sizes.

    Examples:

        darkroom models stats
    """
    from jobs.cli.stored_models import stats_lines
    from pipeline.registry.database import Registry
    from pipeline.registry.queries import stats

    with Registry() as registry:
        found = stats(registry)
    if as_json:
        print_json(asdict(found))
        return
    print_facts(stats_lines(found))
