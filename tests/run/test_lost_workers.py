"""The main loop without processes: workers that lose their device, or die after their last image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.engines import worker
from jobs.engines.messages import Died, Ended, Made, Message, WorkerSettings
from jobs.job import Bundle
from jobs.manifest.job_states import JobStates, read_states
from jobs.planning.plan import Plan
from jobs.running.loop import Result, Runner
from jobs.running.main import validate
from jobs.running.progress import Progress
from jobs.running.run_metrics import RunMetrics
from pipeline.errors import DeviceLost
from pipeline.generation import current_model


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    config = {
        "prompts": {"lines": ["a red house"]},
        "model": {"source": "demo"},
        "memory": {"level": "none"},
        "engine": {"device": "cpu"},
        "output": {"dir": str(tmp_path)},
        "seeds": {"start": 0, "count": 6},
        "batch_size": 2,
        "bundle_images": 2,
    }
    batch = validate([config], [])
    return Plan(batch.expansions, JobStates(), batch.plans)


class ScriptedEngine:
    """Stands for the local engine: the first `losses` workers lose the device, the next one makes everything.

    It ends with the message `last`.
    """

    def __init__(self, losses: int, last: Message) -> None:
        self.losses, self.last, self.starts, self.running = losses, last, 0, False
        self.waiting: list[Message] = []
        self.attempts: Counter[int] = Counter()

    def start(self) -> None:
        self.starts += 1
        self.running = True
        self.waiting = []

    def submit(self, bundle: Bundle) -> None:
        if self.starts > self.losses:
            self.attempts.update(one.attempt for one in bundle.assignments)
            self.waiting += [Made(one.job.id) for one in bundle.assignments]
        elif not self.waiting:
            begun = tuple(one.job.id for one in bundle.assignments)
            self.waiting = [Ended(stop_kind="device_lost", stop_message="CUDA error: gone", begun=begun)]

    def finish(self) -> None:
        self.waiting.append(self.last)

    def stop(self) -> None:
        self.finish()

    def kill(self) -> None:
        self.running = False

    def receive(self, timeout_s: float) -> Message | None:
        if not self.waiting:
            return None
        message = self.waiting.pop(0)
        self.running = not isinstance(message, Ended | Died)
        return message


def run(plan: Plan, engine: ScriptedEngine, output_dir: Path, result: Result) -> None:
    progress, metrics = Progress(6, quiet=True), RunMetrics(output_dir / "metrics.jsonl", "cpu")
    Runner(plan, engine, progress, output_dir, frozenset(), result, metrics, stop_on_error=False).run()  # type: ignore[arg-type]


@pytest.mark.parametrize(("losses", "starts", "made"), [(1, 2, 6), (9, 2, 0)])
def test_fresh_worker_is_tried_once(plan: Plan, tmp_path: Path, losses: int, starts: int, made: int) -> None:
    engine = ScriptedEngine(losses, Ended())
    result = Result()
    run(plan, engine, tmp_path, result)
    assert (engine.starts, result.made, result.failed.total()) == (starts, made, 0)
    if made:
        assert result.stopped is None and engine.attempts == {1: 4, 2: 2}  # only those in work lost an attempt
    else:
        assert result.stopped is not None and "CUDA error: gone" in result.stopped


def test_worker_that_dies_after_its_last_image_is_not_waited_for(plan: Plan, tmp_path: Path) -> None:
    engine = ScriptedEngine(0, Died("killed by SIGKILL"))
    result = Result()
    run(plan, engine, tmp_path, result)
    assert (engine.starts, result.made, result.deaths, result.stopped) == (1, 6, 1, None)


def test_worker_says_what_it_had_in_work_and_seals(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(_model: object, batches: object, *_: object, on_work: Callable[..., None], **__: object) -> None:
        on_work("denoise", [0, 1])
        on_work("decode", [1])  # the first one waits
        raise DeviceLost("the device no longer answers: CUDA error")

    class Model:
        load_seconds = 0.0

    monkeypatch.setattr(current_model, "load_with_fallbacks", lambda *_, **__: Model())
    monkeypatch.setattr(worker, "generate_bundle", lose)
    said: list[Message] = []
    settings = WorkerSettings(str(tmp_path), "run", frozenset(), (), "cpu")
    bundles = list(plan.bundles())
    worker.Worker(settings, said.append, lambda: False).run(bundles)

    ended = said[-1]
    begun = {bundles[0].assignments[1].job.id}
    assert isinstance(ended, Ended) and ended.stop_kind == "device_lost" and set(ended.begun) == begun
    assert list((tmp_path / "manifest" / "journal").glob("*.jsonl")) == []
    states = read_states(tmp_path).others.values()
    assert [(state.status, state.attempt) for state in states] == [("interrupted", 1)]
