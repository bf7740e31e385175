"""Commands of `darkroom models` that change the registry and the store: `scan`, `verify`, `remove`, `prune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.cli.manifest_commands import EXIT_FAULTS_FOUND
from jobs.cli.model_options import Named
from jobs.terminal import Json, one_line, print_json, print_line
from pipeline.errors import ModelError
from pipeline.system.units import size_text

if TYPE_CHECKING:
    from pipeline.registry.records import StoredFile

app = typer.Typer()


@app.command()
def scan(
    folder: Annotated[Path, typer.Argument(help="A folder with models, such as ComfyUI's, A1111's or a hub's cache.")],
    as_json: Json = False,
) -> None:
    """Scan a folder and its subfolders for models. Only headers are read; nothing is moved or written there.

    Examples:

        darkroom models scan ~/ComfyUI/models

        darkroom models scan ~/.cache/huggingface/hub
    """
    from pipeline.registry.database import Registry
    from pipeline.registry.scanning import scan

    with Registry() as registry:
        report = scan(registry, folder)
    if as_json:
        counts = {name: getattr(report, name) for name in ("found", "added", "changed", "unchanged", "gone")}
        print_json({**counts, "refused": [{"path": str(path), "why": why} for path, why in report.refused]})
        return
    for path, why in report.refused:
        print_line(one_line(f"refused: {path}: {why.removeprefix(f'{path.name}: ')}"))
    print_line(
        f"{report.found} models: {report.added} new, {report.changed} changed, {report.unchanged} unchanged; "
        f"{report.gone} gone, {len(report.refused)} refused"
    )


@app.command()
def verify(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Only these; all by default.")] = None,
    as_json: Json = False,
) -> None:
    """Read models and compare them with their hashes; exit 3 if a file is missing or changed.

    A file without a known hash gets one.

    Examples:

        darkroom models verify

        darkroom models verify ink --json
    """
    from tqdm import tqdm

    from jobs.cli.stored_models import file_row, one_model
    from pipeline.registry.database import Registry
    from pipeline.registry.upkeep import verify

    def seen(_: StoredFile) -> None:
        bar.update()

    with Registry() as registry, tqdm(unit="file", disable=None, leave=False) as bar:
        models = [one_model(registry, name) for name in names] if names else None
        checked = list(verify(registry, models, seen))
    faults = [one for one in checked if one.state not in ("ok", "noted")]
    if as_json:
        entries = [{"model": one.model.name, "state": one.state, **file_row(one.file)} for one in checked]
        print_json({"sound": not faults, "files": entries})
    else:
        for one in faults:
            print_line(one_line(f"{one.state}: {one.model.name}: {one.file.path}"))
        noted = sum(one.state == "noted" for one in checked)
        print_line(f"{len(checked)} files: {len(faults)} missing or changed, {noted} hashed for the first time")
    raise typer.Exit(EXIT_FAULTS_FOUND if faults else 0)


@app.command()
def remove(name: Named) -> None:
    """Remove a model from the registry. Files that Darkroom downloaded are deleted, files in your own folders never.

    Examples:

        darkroom models remove ink
    """
    from jobs.cli.stored_models import one_model
    from pipeline.registry.database import Registry
    from pipeline.registry.upkeep import remove

    with Registry() as registry:
        model = one_model(registry, name)
        try:
            freed = remove(registry, model)
        except OSError as error:
            raise ModelError(f"{name!r}: cannot be removed ({error})") from None
    if model.path.exists():
        print_line(f"{model.name}: removed from the registry; {model.path} stays, and the next scan finds it again")
    else:
        print_line(f"{model.name}: removed, {size_text(freed)} freed")


@app.command()
def prune(
    max_gb: Annotated[float, typer.Option("--max-gb", min=0, help="How many GB of downloaded models to keep at most.")],
) -> None:
    """Delete downloaded models, the longest unused first, until the rest fits. Scanned models stay.

    Leftovers of downloads are deleted first: always those older than a day, younger ones if the rest does not fit.

    Examples:

        darkroom models prune --max-gb 100
    """
    from pipeline.registry.database import Registry
    from pipeline.registry.upkeep import prune

    with Registry() as registry:
        try:
            pruned = prune(registry, int(max_gb * 2**30))
        except OSError as error:
            raise ModelError(f"prune: not all could be removed ({error})") from None
    for model in pruned.models:
        print_line(f"removed: {model.name} ({model.reference})")
    left = f" and {len(pruned.leftovers)} leftover files of downloads" if pruned.leftovers else ""
    print_line(f"{len(pruned.models)} models{left} removed, {size_text(pruned.freed_bytes)} freed")
