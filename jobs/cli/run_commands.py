"""Commands of `darkroom` for runs: `runs`."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from jobs.terminal import (
    OUTPUT_DIR,
    Json,
    OutputDir,
    aligned,
    one_line,
    print_facts,
    print_json,
    print_line,
    print_lines,
)

if TYPE_CHECKING:
    from jobs.archive.run_details import Cause, Details, Metrics
    from jobs.archive.runs import Run

app = typer.Typer()

REFRESH_S = 2.0

Format = Literal["table", "json", "csv"]
"""What `runs` prints."""

_COLUMNS = ("id", "started", "state", "requested", "made", "failed", "left")


@app.command()
def runs(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="One run, by the beginning of its id.")] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Follow a running run, the newest by default, until it ends.")
    ] = False,
    format: Annotated[Format, typer.Option(help="How to print the list; `json` and `csv` also one run.")] = "table",
    as_json: Json = False,
    output_dir: OutputDir = OUTPUT_DIR,
) -> None:
    """List runs, newest first, or show one: what was made, what failed and why, and the command that resumes it.

    A `running` run can be followed; one that `died` was killed, or its machine stopped.

    Examples:

        darkroom runs

        darkroom runs 20250111T143022Z

        darkroom runs --watch
    """
    from jobs.archive import runs as archive

    as_json = as_json or format == "json"
    if watch:
        found = archive.find_run(output_dir, run) if run else _live(archive.list_runs(output_dir))
        if found is None:
            print_line("no run is running here")
            return
        _show(_watched(found, output_dir), output_dir, as_json=as_json)
    elif run and format == "csv":
        _print_list([archive.find_run(output_dir, run)], output_dir, format)
    elif run:
        _show(archive.find_run(output_dir, run), output_dir, as_json=as_json)
    else:
        _print_list(archive.list_runs(output_dir), output_dir, "json" if as_json else format)


def _live(found: list[Run]) -> Run | None:
    return next((one for one in found if one.state == "running"), None)


def _print_list(found: list[Run], output_dir: Path, format: Format) -> None:
    from jobs.archive import found_formats

    rows = [_row(run, output_dir) for run in found]
    if format == "json":
        print_json(rows)
    elif format == "csv":
        print_lines(found_formats.as_csv((*_COLUMNS, "way_on"), rows))
    elif not rows:
        print_line("no runs here")
    else:
        cells = [["" if (value := row[name]) is None else str(value) for name in _COLUMNS] for row in rows]
        ways = ["; then ".join(row["way_on"]) for row in rows]
        table = [[*_COLUMNS, "next"], *([*line, way] for line, way in zip(cells, ways, strict=True))]
        print_lines(aligned(table, numeric={3, 4, 5, 6}))


def _row(run: Run, output_dir: Path) -> dict[str, Any]:
    from jobs.archive.runs import ways_on

    return {
        **{name: getattr(run, name) for name in (*_COLUMNS, "command", "command_complete")},
        "way_on": [way.command for way in ways_on(run, output_dir)],
    }


def _show(run: Run, output_dir: Path, *, as_json: bool) -> None:
    from jobs.archive.run_details import details

    found = details(run, output_dir)
    if as_json:
        print_json({**_row(run, output_dir), **asdict(found), "summary": run.summary})
        return
    print_facts([(name, one_line(value)) for name, value in _facts(run, found)])
    for title, causes in (("what failed", found.failures), ("warnings in the log", found.warnings)):
        if causes:
            print_line(f"{title}:")
            for cause in causes:
                print_line(f"  {one_line(_cause_text(cause))}")
    print_lines(_way_lines(run, output_dir))


def _facts(run: Run, found: Details) -> Iterator[tuple[str, str]]:
    from jobs.archive.run_details import entries
    from pipeline.system.units import duration_text, size_text

    summary = run.summary
    stopped = summary.get("stopped")
    yield "run", f"{run.id} ({run.state}: {stopped})" if stopped else f"{run.id} ({run.state})"
    times = [f"started {run.started or 'at an unknown time'}"]
    if isinstance(seconds := summary.get("seconds"), int | float):
        times.append(f"ended {summary.get('finished')}, after {duration_text(seconds)}")
    yield "time", ", ".join(times)
    counts = [("made", run.made), ("failed", run.failed), ("left", run.left), ("requested", run.requested)]
    yield "images", ", ".join(f"{value:,} {name}" for name, value in counts if value is not None)
    for model in found.metrics.models:
        phases = ", ".join(f"{name} {duration_text(value)}" for name, value in model.seconds.items())
        yield (
            "model",
            f"{model.name}: {model.images:,} images, {model.failures:,} failed, {model.loads} loads ({phases})",
        )
    numbers = [("model_loads", "model loads"), ("workers_lost", "lost"), ("workers_recycled", "replaced by fresh ones")]
    if summary:
        yield "workers", ", ".join(f"{summary.get(key, 0)} {text}" for key, text in numbers)
    for stage in entries(run, "memory_stages"):
        if text := _stage_text(stage):
            yield "memory", text
    peak = (summary.get("resources") or {}).get("peak") if isinstance(summary.get("resources"), dict) else None
    if isinstance(peak, dict) and isinstance(peak.get("ram_used_bytes"), int):
        yield "machine", f"at most {size_text(peak['ram_used_bytes'])} of RAM in use, CPU {peak.get('cpu_percent')} %"


def _stage_text(stage: dict[str, Any]) -> str | None:
    from pipeline.system.units import size_text

    sizes = [stage.get(name) for name in ("reserved_bytes", "rss_bytes")]
    taken = next((size for size in sizes if isinstance(size, int) and size), None)
    predicted = stage.get("predicted_bytes")
    if taken is None:
        return None
    by_estimate = f" (by estimate {size_text(predicted)})" if isinstance(predicted, int) else ""
    size = f"{stage.get('width')}x{stage.get('height')}"
    return f"{stage.get('model')} {size}, {stage.get('stage')}: {size_text(taken)}{by_estimate}"


def _cause_text(cause: Cause) -> str:
    when = f", first at {cause.time}" if cause.time else ""
    return f"{cause.count:,} x {cause.kind}{when}: {cause.example}"


def _way_lines(run: Run, output_dir: Path) -> Iterator[str]:
    from jobs.archive.runs import ways_on

    ways = ways_on(run, output_dir)
    for way in ways:
        yield one_line(f"{way.does}:") + f"\n    {one_line(way.command)}"
    if ways and run.command and not run.command_complete:
        yield "replace the placeholders in the command by your values: REMOVED, [key], ~ and the like"
    if not ways and run.state == "running":
        yield "it is running; --watch follows it"
    elif not ways and not run.failed:
        yield "nothing is left to make"


def _watched(run: Run, output_dir: Path) -> Run:
    """The run at its end; a line about it every two seconds until then, one and the same on a terminal."""
    from jobs.archive.run_details import read_metrics
    from jobs.archive.runs import find_run

    on_terminal = sys.stdout.isatty()
    while run.state == "running":
        line = one_line(_live_line(run, read_metrics(run)))
        if on_terminal:
            width = shutil.get_terminal_size().columns - 1
            sys.stdout.write(f"\r\x1b[K{line[:width]}")
        else:
            print_line(line)
        sys.stdout.flush()
        time.sleep(REFRESH_S)
        run = find_run(output_dir, run.id)
    if on_terminal:
        sys.stdout.write("\r\x1b[K")
    return run


def _live_line(run: Run, metrics: Metrics) -> str:
    from pipeline.system.units import duration_text

    total = (run.made or 0) + (run.failed or 0) + (run.left or 0)
    parts = [f"{run.made or 0:,} of {total:,} images"]
    if run.failed:
        parts.append(f"{run.failed:,} failed")
    if metrics.images_per_second:
        parts.append(f"{metrics.images_per_second:.2f} images/s")
        if run.left:
            parts.append(f"{duration_text(run.left / metrics.images_per_second)} left")
    return ", ".join((*parts, *(_resource_texts(metrics.resources) if metrics.resources else ())))


def _resource_texts(values: dict[str, Any]) -> Iterator[str]:
    from pipeline.system.units import size_text

    def size(value: object) -> str:
        return size_text(value) if isinstance(value, int | float) else "?"

    yield f"CPU {values.get('cpu_percent')} %"
    yield f"RAM {size(values.get('ram_used_bytes'))} of {size(values.get('ram_total_bytes'))}"
    if values.get("rss_bytes"):
        yield f"worker {size(values['rss_bytes'])}"
    gpus = values.get("gpus")
    for gpu in gpus if isinstance(gpus, list) else ():
        if isinstance(gpu, dict):
            memory = f"{size(gpu.get('memory_used_bytes'))} of {size(gpu.get('memory_total_bytes'))}"
            units = (("utilization_percent", "%"), ("temperature_c", "°C"), ("power_w", "W"))
            said = [f"{gpu[name]:.0f} {unit}" for name, unit in units if isinstance(gpu.get(name), int | float)]
            yield " ".join((f"GPU {gpu.get('index')}", *said, memory))
