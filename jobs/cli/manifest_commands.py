"""Commands of `darkroom` for the manifest: `verify`, `reindex`, `compact`."""

from __future__ import annotations

from dataclasses import asdict

import typer

from jobs.terminal import OUTPUT_DIR, Json, OutputDir, print_json, print_line

app = typer.Typer()

EXIT_FAULTS_FOUND = 3


@app.command()
def verify(as_json: Json = False, output_dir: OutputDir = OUTPUT_DIR) -> None:
    """Compare the manifest with the files, hash by hash; exit 3 if anything is missing or changed.

    Examples:

        darkroom verify

        darkroom verify --output-dir /data/postcards --json
    """
    from jobs.archive.verify import verify
    from jobs.manifest.layout import command

    result = verify(output_dir)
    if as_json:
        print_json({"sound": result.sound, **asdict(result)})
    else:
        for kind, entries in (
            ("missing", result.missing),
            ("changed", result.changed),
            ("unreadable", result.unreadable),
            ("unreadable part", result.unreadable_parts),
            ("note: superseded, its job has another image", result.superseded),
            ("note: rejected, and removed", result.removed),
            ("sidecar", result.sidecars),
            (f"note: no row, {command(output_dir, 'reindex')} adds it", result.without_row),
            ("note: no row, and reindex cannot add one", result.not_taken),
            ("note: left over", result.leftovers),
        ):
            for entry in entries:
                print_line(f"{kind}: {entry}")
        print_line(f"{result.checked} images: {len(result.missing)} missing, {len(result.changed)} changed")
    raise typer.Exit(0 if result.sound else EXIT_FAULTS_FOUND)


@app.command()
def reindex(as_json: Json = False, output_dir: OutputDir = OUTPUT_DIR) -> None:
    """Rebuild the manifest from the images; rows that cannot be rebuilt are kept.

    Examples:

        darkroom reindex

        darkroom reindex --output-dir /data/postcards
    """
    from jobs.archive.reindex import reindex

    result = reindex(output_dir)
    if as_json:
        print_json(asdict(result))
        return
    for line in result.unreadable:
        print_line(f"unreadable: {line}")
    for line in result.set_aside:
        print_line(f"set aside: {line}")
    print_line(
        f"{result.rebuilt} rows rebuilt from images ({result.added} new), "
        f"{result.kept} kept, {result.dropped} dropped because their image is gone"
    )


@app.command()
def compact(as_json: Json = False, output_dir: OutputDir = OUTPUT_DIR) -> None:
    """Merge small manifest files into big ones; safe while batches run.

    Examples:

        darkroom compact
    """
    from jobs.manifest.compaction import compact

    result = compact(output_dir)
    if as_json:
        print_json(asdict(result))
        return
    for line in result.damaged:
        print_line(f"left unchanged: {line}")
    print_line(f"{result.parts_before} parts became {result.parts_after}, {result.rows_moved} rows moved")
