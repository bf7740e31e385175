"""From composed configurations to an exit code: validate all, plan all, run, report."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jobs.config import FALLBACK, BatchConfig, Memory, Sampling, parse_sound_parts
from jobs.engines.local import LocalEngine
from jobs.engines.messages import WorkerSettings
from jobs.expand import Expansion
from jobs.images import SaveSettings
from jobs.manifest.finished import part_names
from jobs.manifest.reading import measured_seconds, read_states
from jobs.manifest.recovery import recover
from jobs.plan import Plan, PlanSettings
from jobs.progress import Progress
from jobs.prompt_line import PromptSource
from jobs.prompts import open_prompts
from jobs.report import disk_warning, plan_as_json, print_plan, print_result, reader_may_leave, write_run_report
from jobs.runner import Result, Runner
from jobs.wildcards import Wildcards
from pipeline.errors import ConfigError, DarkroomError, ModelError, RunStopped
from pipeline.metadata.naming import NamingSettings
from pipeline.metadata.settings import MetadataSettings
from pipeline.models.inspection import ModelFolder
from pipeline.models.profile import identify
from pipeline.request import MemorySettings, ModelSettings
from pipeline.schedulers import name_of_class
from pipeline.system.device import Device, find_device

EXIT_OK, EXIT_INPUT, EXIT_FAILURES, EXIT_STOPPED = 0, 2, 3, 4


@dataclass(frozen=True, slots=True)
class Batch:
    """A validated batch: everything that can be wrong with the input has been looked at."""

    configs: list[BatchConfig]
    expansions: list[Expansion]
    plans: list[PlanSettings]
    saves: tuple[SaveSettings, ...]
    device: Device
    weights: dict[ModelSettings, ModelFolder]

    @property
    def first(self) -> BatchConfig:
        """Any configuration, for the keys that hold for the whole run."""
        return self.configs[0]


def main(configs: Sequence[Mapping[str, Any]], folders: Sequence[Path]) -> int:
    """Run a batch; returns the exit code. `folders` are the configuration folders, searched for prompt files.

    0: every requested image exists. 2: bad input, nothing started. 3: finished, some jobs failed. 4: stopped early, the
    same command goes on.
    """
    verbose = any(config.get("verbose") is True for config in configs)
    try:
        batch = validate(configs, folders)
        return run(batch)
    except RunStopped as error:
        return _tell(error, verbose, EXIT_STOPPED)
    except DarkroomError as error:
        return _tell(error, verbose, EXIT_INPUT)
    except Exception as error:
        if verbose:
            traceback.print_exc()
        print(
            f"unexpected {type(error).__name__}: {error}; everything finished is kept, verbose=true shows where",
            file=sys.stderr,
        )
        return EXIT_STOPPED
    except KeyboardInterrupt:
        print("stopped before the first image; nothing was lost", file=sys.stderr)
        return EXIT_STOPPED


def _tell(error: Exception, verbose: bool, code: int) -> int:
    if verbose:
        # Without the message, which follows as everybody else sees it.
        print("".join(traceback.format_exception(error)).removesuffix(f": {error}\n"), file=sys.stderr)
    print(error, file=sys.stderr)
    return code


def validate(configs: Sequence[Mapping[str, Any]], folders: Sequence[Path]) -> Batch:
    """Check configurations, prompts, models, naming and the output folder. Raises `ConfigError` with every fault."""
    parsed, found = parse_sound_parts(configs)
    faults = dict.fromkeys(found)
    if not parsed:
        raise ConfigError(found)
    expansions: list[Expansion] = []
    plans: list[PlanSettings] = []
    saves: list[SaveSettings] = []
    device = find_device(parsed[0].engine.device)
    wildcards = Wildcards([folder / "wildcards" for folder in folders])
    models: dict[tuple[str, str | None, str | None], tuple[ModelSettings, ModelFolder] | None] = {}
    sources: dict[str, PromptSource] = {}  # a sweep asks for the same file again and again
    for index, config in enumerate(parsed):
        try:
            saves.append(_save_settings(config))
            _check_privacy(config)
        except ConfigError as error:
            faults.update(dict.fromkeys(error.faults))
        key = (config.model.source, config.model.name, config.model.vae)
        if key not in models:
            try:
                models[key] = identify(*key)
            except ModelError as error:
                models[key] = None
                faults[str(error)] = None
        try:
            text = config.prompts.model_dump_json()
            if text not in sources:
                sources[text] = open_prompts(config.prompts, [folder / "prompts" for folder in folders])
            prompts = sources[text]
            known = models[key]
            if known is None:
                continue
            model, weights = known
            memory = _memory_settings(config, device)
            plans.append(_plan_settings(config, model, memory))
            expansions.append(Expansion(config, index, prompts, wildcards, model, memory, _fallback(weights)))
        except ConfigError as error:
            faults.update(dict.fromkeys(error.faults))
    output_dir = Path(parsed[0].output.dir)
    absent = [folder for folder in (output_dir, *output_dir.parents) if not os.path.lexists(folder)]
    faults.update(dict.fromkeys(_output_faults(output_dir, dry_run=bool(parsed[0].dry_run))))
    if faults:
        for folder in absent:  # made to find out whether it can be; a refused batch leaves nothing behind
            with contextlib.suppress(OSError, ValueError):
                folder.rmdir()
        raise ConfigError(list(faults))
    by_settings = dict(known for known in models.values() if known is not None)
    return Batch(parsed, expansions, plans, tuple(saves), device, by_settings)


def run(batch: Batch) -> int:
    """Plan and, unless it is a dry run, make what is missing; returns the exit code."""
    config = batch.first
    output_dir = Path(config.output.dir)
    if not config.dry_run:
        recover(output_dir)
    known_parts = part_names(output_dir)
    states = read_states(output_dir)
    plan = Plan(batch.expansions, states, batch.plans)
    if faults := unsuitable(plan, batch.weights):
        raise ConfigError(faults)
    if config.dry_run:
        timings = measured_seconds(output_dir)
        with reader_may_leave():
            if config.dry_run == "json":
                print(plan_as_json(plan, timings, verbose=config.verbose))
            else:
                print_plan(plan, timings, output_dir, verbose=config.verbose)
        return EXIT_OK
    if not config.quiet and (warning := disk_warning(plan, output_dir)):
        print(warning, file=sys.stderr)
    started = datetime.now(UTC)
    run_id = f"{started:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
    if plan.to_make == 0:
        result = Result()
    else:
        worker = WorkerSettings(
            output_dir=str(output_dir.resolve()),
            run_id=run_id,
            known_parts=known_parts,
            saves=batch.saves,
            device=batch.device.kind,
            cpu_threads=config.engine.cpu_threads,
            verbose=config.verbose,
        )
        progress = Progress(plan.to_make, quiet=config.quiet)
        runner = Runner(
            plan, LocalEngine(worker), progress, output_dir, known_parts, stop_on_error=config.on_error == "stop"
        )
        try:
            result = runner.run()
        finally:
            progress.close()
    code = _exit_code(plan, result)
    write_run_report(output_dir, run_id, batch.configs, plan, result, started, code)
    if not config.quiet:
        with reader_may_leave():
            print_result(plan, result, output_dir)
    elif result.stopped:
        print(result.stopped, file=sys.stderr)
    return code


def unsuitable(plan: Plan, weights: Mapping[ModelSettings, ModelFolder]) -> list[str]:
    """What a prompt, the grid or `sampling` asks for and the weights cannot do, found before anything is loaded."""
    faults: dict[str, None] = {}
    for group, _ in plan.groups():
        folder, like = weights[group.model], group.likeness
        if like.clip_skip and folder.text_layers and like.clip_skip > folder.text_layers:
            faults[
                f"sampling.clip_skip: must be at most {folder.text_layers} for {group.model.name}, whose text encoder "
                f"has that many layers (got {like.clip_skip})"
            ] = None
        if _is_flow_matching(like.scheduler) != _is_flow_matching(folder.scheduler_class):
            kind = "a flow-matching" if _is_flow_matching(folder.scheduler_class) else "no flow-matching"
            faults[f"sampling.scheduler: {like.scheduler} does not suit {group.model.name}, {kind} model"] = None
    return list(faults)


def _is_flow_matching(scheduler: str) -> bool:
    return "flowmatch" in scheduler.lower()


def _exit_code(plan: Plan, result: Result) -> int:
    if result.stopped:
        return EXIT_STOPPED
    return EXIT_FAILURES if result.failed or plan.failed_before else EXIT_OK


def _plan_settings(config: BatchConfig, model: ModelSettings, memory: MemorySettings) -> PlanSettings:
    auto = config.batch_size == "auto"
    return PlanSettings(
        model,
        memory,
        batch_size=config.memory.max_batch_size if config.batch_size == "auto" else config.batch_size,
        max_batch_pixels=config.memory.max_batch_pixels if auto else None,
        resume=config.resume,
        retry_failed=config.retry_failed,
    )


def _memory_settings(config: BatchConfig, device: Device) -> MemorySettings:
    wanted = next((dtype for dtype in (config.memory.dtype, config.model.dtype) if dtype != "auto"), device.dtype)
    memory: Memory = config.memory
    return MemorySettings(memory.level, wanted, memory.vae_slicing, memory.vae_tiling)


def _fallback(weights: ModelFolder) -> Sampling:
    """Every value that the batch and the profile may leave open. Not checked: the weights say it."""
    return FALLBACK.model_copy(
        update={
            "width": weights.width,
            "height": weights.height,
            "scheduler": name_of_class(weights.scheduler_class, weights.scheduler_config),
        }
    )


def _save_settings(config: BatchConfig) -> SaveSettings:
    naming = config.naming.model_dump()
    naming["components"] = tuple(naming["components"])
    return SaveSettings(
        naming=NamingSettings(**naming),
        metadata=MetadataSettings(**config.metadata.model_dump()),
        output_format=config.output.format,
    )


def _check_privacy(config: BatchConfig) -> None:
    naming = config.naming
    telling = naming.scheme == "descriptive" or (naming.scheme == "custom" and "excerpt" in naming.components)
    if config.metadata.profile == "private" and telling:
        raise ConfigError(
            f"naming.scheme: {naming.scheme} puts the prompt into file names, which metadata=private keeps out of the "
            "files; use naming=guid"
        )


def _output_faults(output_dir: Path, *, dry_run: bool) -> list[str]:
    """Whether images can be written; found out by writing, since permission bits do not tell the whole truth."""
    try:
        if output_dir.exists() and not output_dir.is_dir():
            return [f"output.dir: {output_dir} is a file; give a folder"]
        if dry_run:
            return []
        probe = output_dir / f".probe.{secrets.token_hex(4)}.tmp"
        output_dir.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        return [f"output.dir: {output_dir} cannot be written ({reason}); give another folder"]
    return []
