"""Commands of `darkroom models` that may contact the hubs: `search`, `show`, `download`, `privacy`.

For models on this machine no request is sent; with `--local` none at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated

import typer

from jobs.cli.image_commands import Formatted, Limit
from jobs.cli.model_options import Named, OfKind, Settings, most_of, print_found, words_and_settings
from jobs.config.hub_access import settings_of_this_machine, transport_of_this_machine
from jobs.terminal import EXIT_STOPPED, Json, complain, one_line, print_facts, print_json, print_lines
from pipeline.errors import ConfigError, ModelError, Unreachable

app = typer.Typer()

Local = Annotated[bool, typer.Option("--local", help="Only models on this machine; no hub is asked.")]


@app.command()
def search(
    query: Annotated[
        list[str], typer.Argument(metavar="QUERY... [hub.KEY=VALUE]...", help="Words to search for, and settings.")
    ],
    local: Local = False,
    kind: OfKind = None,
    limit: Limit = None,
    format: Formatted = "table",
) -> None:
    """Search for models on this machine, Hugging Face and CivitAI; those that cannot be downloaded come last.

    The hubs are sent the words and the kind. `--format paths` prints only models on this machine and asks no hub.
    Exit code 4 means that no hub could be reached.

    Examples:

        darkroom models search ink --kind lora

        darkroom models search watercolour sdxl --local

        darkroom models search ink hub.proxy=socks5h://127.0.0.1:9050
    """
    from jobs.cli.hub_models import HIT_COLUMNS, hit_row, hits_table
    from pipeline.hubs import hub_search
    from pipeline.registry.database import Registry

    words, settings = words_and_settings(query)
    if not words.strip():
        raise ConfigError("search: expected words to look for")
    most = most_of(limit, format)
    notes: Sequence[str] = ()
    reached = True
    transport = transport_of_this_machine(settings)
    with Registry() as registry:
        if local or format == "paths":
            hits = hub_search.here(words, registry, kind)[:most]
        else:
            asked = None if limit == 0 else max(hub_search.ASKED, limit or 0)
            found = hub_search.search(words, registry, transport, kind=kind, limit=most, asked=asked)
            hits, notes, reached = list(found.hits), found.notes, found.reached
    rows = [hit_row(hit) for hit in hits]
    print_found(rows, HIT_COLUMNS, hits_table(hits), (hit.path for hit in hits), format, limit)
    for note in notes:
        complain(note)
    if not reached:
        raise typer.Exit(EXIT_STOPPED)


@app.command()
def show(
    name: Named,
    settings: Settings = None,
    local: Local = False,
    refresh: Annotated[bool, typer.Option("--refresh", help="Request the card from the hub again.")] = False,
    as_json: Json = False,
) -> None:
    """Print what is known of a model, and its model card, which is kept after it was downloaded.

    For `hf:...` and `civitai:...` that are not on this machine, the card is requested from the hub.

    Examples:

        darkroom models show ink

        darkroom models show sha256:ebd278174909 --json

        darkroom models show civitai:102
    """
    from jobs.cli.hub_models import card_lines, card_row, text_lines
    from jobs.cli.stored_models import as_lines, as_row, claim_lines, claims_row, file_row, one_model
    from pipeline.hubs.cards import card, card_of, kept_card
    from pipeline.hubs.results import PASSING, Ok
    from pipeline.registry.database import Registry, RegistryNotWritable
    from pipeline.registry.queries import find
    from pipeline.registry.records import ModelCard
    from pipeline.registry.stored_cards import card_of as stored_card_of
    from pipeline.registry.storing import files_of
    from pipeline.weights.references import parse

    if local and refresh:
        raise ConfigError("show: --local contacts no hub, --refresh needs one; leave one of them out")
    transport = transport_of_this_machine(settings or ())
    with Registry() as registry:
        asked = not local and name.startswith(("hf:", "civitai:")) and not find(registry, name)
        model = None if asked else one_model(registry, name)
        files = files_of(registry, model) if model else []
        claims = stored_card_of(registry, model) if model else ModelCard()
    reference = card_of(model) if model else parse(name)
    found = kept_card(transport.settings, reference) if reference and model else None
    if reference and (refresh or not model):
        said = card(transport, reference, anew=refresh)
        if not isinstance(said, Ok):
            raise (Unreachable if said.kind in PASSING else ModelError)(said.say())
        found = said.value
        if model:
            from pipeline.hubs.fetch_model import keep_card

            with Registry() as registry, suppress(RegistryNotWritable):
                model = keep_card(registry, model, found)
                claims = stored_card_of(registry, model)
        if said.stale:
            complain(said.say())
    if as_json:
        about = as_row(model) | {"claims": claims_row(claims)} if model else {"path": None}
        print_json(about | {"files": [file_row(file) for file in files], "card": card_row(found) if found else None})
        return
    lines = as_lines(model, files) if model else []
    asked_for = [line for line in card_lines(found) if line not in lines] if found else []
    claimed = [line for line in claim_lines(model.name if model else "", claims) if line[0] not in dict(asked_for)]
    print_facts([*lines, *asked_for, *claimed])
    print_lines(text_lines(found.text if found else claims.description))
    if not model and found:
        way_out = found.obstacle.say() if found.obstacle else f"darkroom models download {found.reference}"
        complain(f"not on this machine; {way_out}")


@app.command()
def download(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name, `hf:...`, `civitai:...` or `sha256:...`.")],
    settings: Settings = None,
    kind: OfKind = None,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Check Hugging Face for a newer commit, even if the model is here.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be downloaded.")] = False,
    as_json: Json = False,
) -> None:
    """Download a model from Hugging Face, else from CivitAI. Interrupted downloads resume.

    Examples:

        darkroom models download hf:org/name

        darkroom models download hf:org/name --refresh

        darkroom models download ink --kind lora --dry-run

        darkroom models download civitai:102 hub.civitai_url=https://mirror.example
    """
    from jobs.cli.hub_models import attempt_lines, attempt_rows, plan_lines, plan_row
    from pipeline.hubs.download_progress import progress_bars
    from pipeline.hubs.find_or_fetch import find_or_download, plan_by_name
    from pipeline.registry.database import Registry

    transport = transport_of_this_machine(settings or ())
    if dry_run:
        planned = plan_by_name(name, transport, kind=kind, refresh=refresh)
        if as_json:
            here = {"path": str(planned.path) if planned.path else None, "tried": attempt_rows(planned.tried)}
            print_json(here | {"plan": plan_row(planned.plan) if planned.plan else None})
            return
        about = plan_lines(planned.plan) if planned.plan else [("path", f"{planned.path} (nothing to download)")]
        print_facts([*attempt_lines(planned.tried), *about])
        return
    try:
        with Registry() as registry, progress_bars() as progress:
            fetched = find_or_download(name, registry, transport, kind=kind, refresh=refresh, progress=progress)
    except KeyboardInterrupt:
        complain("darkroom: stopped; the downloaded part is kept, and the same command resumes")
        raise typer.Exit(EXIT_STOPPED) from None
    if as_json:
        print_json(
            {"reference": fetched.reference, "path": str(fetched.path), "downloaded": fetched.downloaded}
            | {"tried": attempt_rows(fetched.tried)}
        )
        return
    print_facts(
        [*attempt_lines(fetched.tried), ("reference", fetched.reference), ("path", one_line(str(fetched.path)))]
    )


@app.command()
def privacy(settings: Settings = None, as_json: Json = False) -> None:
    """Print each kind of request: its address, its headers, and what it tells the hub. This sends nothing.

    Examples:

        darkroom models privacy

        darkroom models privacy hub.allow_token=true --json
    """
    from jobs.cli.hub_privacy import privacy_lines, privacy_row

    chosen = settings_of_this_machine(settings or ())
    if as_json:
        print_json(privacy_row(chosen))
        return
    print_lines(privacy_lines(chosen))
