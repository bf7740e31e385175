"""From composed configurations to an exit code: validate all, plan all, run, report."""

from __future__ import annotations

import logging
import secrets
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from jobs.config.batch_config import BatchConfig
from jobs.config.hub_access import open_transport
from jobs.config.profiles import keep_last
from jobs.engines.local import LocalEngine
from jobs.engines.messages import WorkerSettings
from jobs.engines.processes import WorkerProcesses
from jobs.engines.recycling import RecyclingLimits
from jobs.manifest.done_elsewhere import part_names
from jobs.manifest.job_states import JobStates, measured_seconds, read_states
from jobs.manifest.recovery import Recovery, recover
from jobs.planning.fetching import Downloads, fetch, lines, look_up, not_asked, values
from jobs.planning.memory_and_batch_size import speed_settings
from jobs.planning.memory_levels import beside_card, on_a_card
from jobs.planning.missing_weights import Needed, NotHere
from jobs.planning.model_checks import notes, too_small, unsuitable
from jobs.planning.plan import Plan
from jobs.planning.refused_prompts import MAX_TOLD, record_refused, refused_lines, refused_prompts
from jobs.planning.validation import Batch, validate
from jobs.running.assisted import Assistant
from jobs.running.choice_report import choice_lines, choice_values
from jobs.running.command_line import KeptCommand, kept_command
from jobs.running.interrupts import interrupts_stay
from jobs.running.loop import STOPPED_ON_ERROR, Result, Runner
from jobs.running.memory_report import memory_lines
from jobs.running.on_end import start_on_end
from jobs.running.progress import Progress
from jobs.running.report import disk_warning, plan_values, print_plan, print_result
from jobs.running.run_folder import LOG, METRICS, SUMMARY, RunFolder, head, summary
from jobs.running.run_log import RunLog, run_log
from jobs.running.run_metrics import SAMPLE_EVERY_S, RunMetrics
from jobs.terminal import EXIT_FAILURES, EXIT_INPUT, EXIT_OK, EXIT_STOPPED, complain, print_json, print_lines
from pipeline.errors import ConfigError, DarkroomError, LeakFound, RunStopped
from pipeline.version import VERSION

_log = logging.getLogger("darkroom.run")

MAX_PLAN_LINES = 50
"""Kinds of pictures that the log names with how they are fitted into memory."""


def main(
    configs: Sequence[Mapping[str, Any]],
    folders: Sequence[Path],
    workers: WorkerProcesses | None = None,
    places_of_lines: Sequence[str | None] = (),
    arguments: Sequence[str] | None = None,
) -> int:
    """Run a batch; returns the exit code. `folders` are the configuration folders, searched for prompt files,
    `workers` where the worker's process comes from. `places_of_lines` is what messages call the `prompts.lines` of each
    configuration, None the set's name. `arguments` are those of the command line, kept to be given again.

    0: every requested image exists. 2: bad input, nothing started. 3: finished, some jobs failed. 4: stopped early, the
    same command goes on.
    """
    verbose = any(config.get("verbose") is True for config in configs)
    try:
        with run_log() as log, interrupts_stay():
            batch = _with_all_here(configs, folders, places_of_lines, Assistant())
            if arguments is not None and not batch.first.dry_run:
                keep_last(arguments, configs[0], folders)
            return run(batch, workers, log, arguments)
    except NotHere as lacking:
        return _tell_missing(lacking)
    except RunStopped as error:
        return _tell(error, verbose, EXIT_STOPPED)
    except DarkroomError as error:
        return _tell(error, verbose, EXIT_INPUT)
    except Exception as error:
        if verbose:
            traceback.print_exc()
        complain(f"unexpected {type(error).__name__}: {error}; everything finished is kept, verbose=true shows where")
        return EXIT_STOPPED
    except KeyboardInterrupt:
        complain("stopped before the first image; nothing was lost")
        return EXIT_STOPPED


def _with_all_here(
    configs: Sequence[Mapping[str, Any]],
    folders: Sequence[Path],
    places_of_lines: Sequence[str | None],
    assistant: Assistant,
) -> Batch:
    """The batch, once what it lacks has been fetched. Raises `NotHere` for a dry run, as `validate` and `fetch` do."""
    fetched: set[Needed] = set()
    while True:
        try:
            return validate(configs, folders, places_of_lines, assistant.decide)
        except NotHere as lacking:
            # A file that has come may show that weights are needed where configurations had seemed enough.
            if lacking.config.dry_run or fetched.issuperset(lacking.needs):
                raise
            fetch(lacking.needs, lacking.config)
            fetched.update(lacking.needs)


def _tell_missing(lacking: NotHere) -> int:
    """What a dry run can say before the weights are here: what they are. Else fetching was no use, and this is why."""
    config = lacking.config
    if not config.dry_run:
        return _tell(ConfigError(lacking.faults), config.verbose, EXIT_INPUT)
    try:
        found = _missing(lacking.needs, config)
    except DarkroomError as error:
        return _tell(error, config.verbose, EXIT_INPUT)
    if config.dry_run == "json":
        print_json(values(found))
    else:
        print_lines([*lines(found), "the plan      is known after these downloads"])
    return EXIT_OK


def _missing(needs: Sequence[Needed], config: BatchConfig) -> Downloads:
    if not needs or not config.hub.auto_download:
        return not_asked(needs)
    return look_up(needs, open_transport(config.hub, quiet=config.quiet))


def _tell(error: Exception, verbose: bool, code: int) -> int:
    if verbose:
        # Without the message, which follows as everybody else sees it.
        print("".join(traceback.format_exception(error)).removesuffix(f": {error}\n"), file=sys.stderr)
    complain(str(error))
    return code


def run(
    batch: Batch,
    workers: WorkerProcesses | None = None,
    log: RunLog | None = None,
    arguments: Sequence[str] | None = None,
) -> int:
    """Plan and, unless it is a dry run, make what is missing; returns the exit code."""
    config = batch.first
    output_dir = Path(config.output.dir)
    if not config.dry_run:
        _tell_recovery(recover(output_dir))
    known_parts = part_names(output_dir)
    states = read_states(output_dir)
    plan = Plan(batch.expansions, states, batch.plans)
    faults = unsuitable(plan, batch.models)
    if any(one.memory.budget_gb is not None for one in batch.configs) and not config.dry_run:
        faults += too_small(plan)
    if faults:
        raise ConfigError(faults)
    if not config.quiet:
        for warning in batch.warnings:
            complain(warning)
    if config.dry_run:
        _print_dry_run(batch, plan, states)
        return EXIT_OK
    if not config.quiet:
        for warning in filter(None, (disk_warning(plan, output_dir), *too_small(plan))):
            complain(warning)
    return _make(batch, plan, known_parts, workers, log or RunLog(), arguments)


def _print_dry_run(batch: Batch, plan: Plan, states: JobStates) -> None:
    config = batch.first
    output_dir = Path(config.output.dir)
    timings = measured_seconds(output_dir)
    missing = _missing(batch.missing, config)
    if config.dry_run == "json":
        planned = plan_values(plan, timings, verbose=config.verbose)
        print_json({**planned, **choice_values(batch), **values(missing)})
    else:
        print_plan(plan, timings, output_dir, verbose=config.verbose)
        print_lines(choice_lines(batch, verbose=config.verbose))
        print_lines(refused_lines(plan))
        print_lines(memory_lines(plan, f"on this machine ({batch.device.kind})"))
        if batch.device.kind != "cuda" and (card := on_a_card(batch)):
            where = f"on a card of this size (there is none here), {beside_card(batch)}"
            print_lines(memory_lines(Plan(batch.expansions, states, card), where))
        print_lines(notes(plan, batch.models))
        print_lines(lines(missing))
    sys.stdout.flush()


def _make(
    batch: Batch,
    plan: Plan,
    known_parts: frozenset[str],
    workers: WorkerProcesses | None,
    log: RunLog,
    arguments: Sequence[str] | None,
) -> int:
    """Make what is missing and keep, below `runs/`, what there is to say of it; returns the exit code."""
    config = batch.first
    output_dir = Path(config.output.dir)
    started = datetime.now(UTC)
    run_id = f"{started:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
    folder, result = RunFolder(output_dir, run_id), Result()
    command = None if arguments is None else kept_command(arguments)
    with suppress(OSError):  # what cannot be written is told of at the end; the images are what counts
        folder.begin(batch.configs, head(run_id, started, batch.device.kind, plan, command))
    try:
        log.begin(folder.path / LOG)
        _tell_start(batch, plan, run_id, arguments)
        if plan.refused:
            _refuse(plan, config, output_dir, run_id, result)
        metrics = RunMetrics(folder.path / METRICS, batch.device.name or batch.device.kind)
        if plan.to_make and not result.stopped:
            engine = LocalEngine(_worker_settings(batch, output_dir, run_id, known_parts), workers or WorkerProcesses())
            _run_to_the_end(plan, engine, config, known_parts, result, metrics)
        code = _exit_code(plan, result)
        faults = {LOG: log.fault, METRICS: metrics.fault}
        _report(folder, plan, result, started, code, command, faults, config)
        if config.on_end:
            counts = {"made": result.made, "failed": result.failed.total(), "exit_code": code}
            start_on_end(config.on_end, run_id, folder.path / SUMMARY, **counts)
        return code
    finally:
        folder.close()


def _run_to_the_end(
    plan: Plan,
    engine: LocalEngine,
    config: BatchConfig,
    known_parts: frozenset[str],
    result: Result,
    metrics: RunMetrics,
) -> None:
    from pipeline.system.resources import ResourceMonitor  # while the worker imports its own

    output_dir, stop_on_error = Path(config.output.dir), config.on_error == "stop"
    progress = Progress(plan.to_make, quiet=config.quiet)
    runner = Runner(plan, engine, progress, output_dir, known_parts, result, metrics, stop_on_error=stop_on_error)
    try:
        with ResourceMonitor(SAMPLE_EVERY_S, pid=lambda: engine.pid, on_sample=metrics.resources) as monitor:
            runner.run()
        result.resources_mean, result.resources_peak = monitor.mean, monitor.peak
    finally:
        progress.close()


def _report(
    folder: RunFolder,
    plan: Plan,
    result: Result,
    started: datetime,
    code: int,
    command: KeptCommand | None,
    faults: Mapping[str, str | None],
    config: BatchConfig,
) -> None:
    """Write and print what came of a run, as far as both are to be had."""
    output_dir = Path(config.output.dir)
    _tell_end(plan, result, code)
    try:
        try:
            folder.end(summary(folder.path.name, plan, result, started, code, command))
        except OSError as error:  # after a full disk it may not fit; the images and their rows are what counts
            complain(f"{folder.path}: the run's summary cannot be written ({error.strerror or error})")
        for name, fault in faults.items():
            if fault:
                complain(f"{folder.path / name}: {fault}")
        if not config.quiet:
            print_result(plan, result, output_dir)
            sys.stdout.flush()
        elif result.stopped:
            complain(result.stopped)
    except SystemExit:  # nobody reads it; the code is that of the images
        pass
    except RunStopped as error:
        complain(f"{error}; the report is in {folder.path}")
    except KeyboardInterrupt:
        complain(f"stopped while the report was written; {result.made:,} images were made, and all are kept")


def _tell_recovery(found: Recovery) -> None:
    """Log what runs have left that did not come to their end."""
    if found.journals:
        left = f"{found.adopted} finished images got their rows, {len(found.lost)} lost an attempt"
        _log.info("%d workers of earlier runs had died: %s", found.journals, left)


def _tell_start(batch: Batch, plan: Plan, run_id: str, arguments: Sequence[str] | None) -> None:
    device = batch.device
    there = f"{plan.done} there already, {plan.failed_before} failed before, {plan.refused} refused"
    counts = f"{plan.to_make} of {plan.requested} images to make ({there}, {plan.duplicates} duplicates)"
    _log.info("run %s started: darkroom %s on %s: %s", run_id, VERSION, device.name or device.kind, counts)
    is_private = any(one.metadata.profile == "private" for one in batch.configs)
    if arguments is not None:
        _log.info("command: %s", kept_command(arguments, prompts=not is_private).text)
    for name, made in plan.characters.items():
        _log.info("characters of %s: %s", name, made.coverage)
    for warning in batch.warnings:
        _log.warning("choice: %s", warning)
    for line in islice(choice_lines(batch, verbose=True, prompts=not is_private), MAX_PLAN_LINES):
        _log.info("choice: %s", line.removeprefix("chosen").strip())
    for line in islice(memory_lines(plan, f"on {device.kind}"), MAX_PLAN_LINES):
        _log.info("plan: %s", line.strip())


def _tell_end(plan: Plan, result: Result, code: int) -> None:
    kinds = ", ".join(f"{count} {kind}" for kind, count in result.failed.items())
    counts = [
        f"{result.made} made",
        f"{result.failed.total()} failed" + (f" ({kinds})" if kinds else ""),
        f"{result.made_elsewhere} made by other runs meanwhile",
        f"{result.left(plan)} left",
        f"{result.loads} model loads, {result.deaths} workers lost, {result.recycled} replaced",
    ]
    _log.info("run ended with code %d: %s", code, ", ".join(counts))
    if result.stopped:
        _log.info("everything finished is kept; %s", result.way_on)


def _refuse(plan: Plan, config: BatchConfig, output_dir: Path, run_id: str, result: Result) -> None:
    """Record and tell the prompts of which no image may be made."""
    record_refused(plan, output_dir, run_id)
    result.failed[LeakFound.kind] = plan.refused
    for line in refused_lines(plan):
        _log.error("%s", line)
    result.failures += [(one.job.id, LeakFound.kind, one.reason) for one in islice(refused_prompts(plan), MAX_TOLD)]
    if config.on_error == "stop":
        result.stopped, result.stop_kind = STOPPED_ON_ERROR, "on_error"
    if not config.quiet:
        for line in refused_lines(plan):
            complain(line)


def _worker_settings(batch: Batch, output_dir: Path, run_id: str, known_parts: frozenset[str]) -> WorkerSettings:
    config: BatchConfig = batch.first
    engine = config.engine
    return WorkerSettings(
        output_dir=str(output_dir.resolve()),
        run_id=run_id,
        known_parts=known_parts,
        saves=batch.saves,
        device=batch.device.kind,
        cpu_threads=engine.cpu_threads,
        speed=speed_settings(config),
        recycling=RecyclingLimits(
            images=engine.recycle_images,
            growth_bytes=None if engine.recycle_growth_gb is None else int(engine.recycle_growth_gb * 1e9),
            slowdown=engine.recycle_slowdown,
        ),
        read_ahead=engine.read_ahead,
        verbose=config.verbose,
    )


def _exit_code(plan: Plan, result: Result) -> int:
    if result.stopped:
        return EXIT_STOPPED
    return EXIT_FAILURES if result.failed or plan.failed_before else EXIT_OK
