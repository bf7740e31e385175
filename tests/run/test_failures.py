"""Jobs that fail, models that fail every job, jobs that take their process with them."""

from __future__ import annotations

import shlex
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from forked import program
from running import Batch

KEY = "sk-" + "Ab3dE6gH9jK2mN5pQ8sT1vW4xY7zC0"
"""Looks like a secret; a prompt with it is refused, which is a failure without any tricks."""


def everything_below(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.mark.slow
def test_a_prompt_is_told_by_where_its_text_stood(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch([f"my key is {KEY}"], "dry_run=true")
    given = f'prompts.lines=["a red house","my key is {KEY}"]'
    assert "refused: prompt 1 of mine, 1 image: " in batch.run().out
    for override in (given, f"prompts={{{given.removeprefix('prompts.').replace('=', ': ')}}}"):
        run = batch.run(override)
        assert "refused: prompt 2 of prompts.lines on the command line, 1 image: " in run.out, run


@pytest.mark.slow
def test_a_prompt_of_a_file_is_told_by_that_file(make_batch: Callable[..., Batch], tmp_path: Path) -> None:
    batch = make_batch(["a red house"], "dry_run=true")
    given = f"lines: [a red house, my key is {KEY}]\n"
    for name, text in (
        ("experiment/study", f"# @package _global_\nprompts:\n  {given}"),
        ("experiment/like", "# @package _global_\ndefaults: [study, _self_]\nseeds: 3\n"),
        ("experiment/chosen", "# @package _global_\ndefaults: [override /prompts: ours]\nseeds: 3\n"),
        ("prompts/ours", f"defaults: [demo, _self_]\n{given}"),
        ("prompts/theirs", "defaults: [ours, _self_]\nname: theirs\n"),
    ):
        (tmp_path / "conf" / name).with_suffix(".yaml").parent.mkdir(exist_ok=True)
        (tmp_path / "conf" / name).with_suffix(".yaml").write_text(text)
    for override, place in (
        ("experiment=study", "prompts.lines in experiment/study.yaml"),
        ("experiment=like", "prompts.lines in experiment/study.yaml"),
        ("prompts=ours", "lines in prompts/ours.yaml"),
        ("prompts=theirs", "theirs"),
    ):
        run = batch.run(override)
        assert f"refused: prompt 2 of {place}, 1 image: " in run.out, run
    swept = batch.run("-m", "experiment=study,chosen")  # prompts=mine on the command line wins over `chosen`
    assert swept.out.count("refused: prompt 2 of ") == 1, swept
    assert "refused: prompt 2 of prompts.lines in experiment/study.yaml, 1 image: " in swept.out, swept


def test_prompts_of_every_run_are_told_by_the_file_of_this_machine(
    make_batch: Callable[..., Batch], tmp_path: Path
) -> None:
    local = tmp_path / "darkroom" / "conf" / "local" / "default.yaml"
    local.parent.mkdir(parents=True)
    local.write_text(f"# @package _global_\nprompts: {{lines: [my key is {KEY}]}}\n")
    run = make_batch(["a red house"], "dry_run=true").run(env={"XDG_CONFIG_HOME": str(tmp_path)})
    assert "refused: prompt 1 of prompts.lines in local/default.yaml, 1 image: " in run.out, run


@pytest.mark.slow
def test_failed_job_does_not_stop_the_others(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch(["a red house", f"my key is {KEY}", "a blue boat"])
    run = batch.run()
    assert run.code == 3
    assert "2 made, 1 failed (1 leak)" in run.out and "refused: prompt 2 of mine, 1 image: the image would" in run.err
    (hint,) = (line.partition(": ")[2] for line in run.out.splitlines() if line.startswith("why images failed: "))
    why = program(*shlex.split(hint), cwd=batch.folder, folder=batch.folder)
    assert why.code == 0 and "error_message" in why.out and "[key]" in why.out
    done, failed = ([row for row in batch.rows() if row["status"] == status] for status in ("done", "failed"))
    assert len(done) == 2 and batch.images() == {row["path"] for row in done}
    assert [(row["error_kind"], row["attempt"], row["path"]) for row in failed] == [("leak", 1, None)]
    assert "[key]" in failed[0]["prompt"]
    assert KEY.encode() not in everything_below(batch.output_dir) and KEY not in run.out + run.err

    # It is not tried again by itself, and the exit code still says that an image is missing.
    again = batch.run()
    assert again.code == 3 and "0 made, 2 were there already, 1 failed before" in again.out
    retried = batch.run("retry_failed=true")
    assert retried.code == 3 and "1 failed (1 leak)" in retried.out
    assert sorted(row["attempt"] for row in batch.rows() if row["status"] == "failed") == [1, 2]
    assert len(batch.images()) == 2


@pytest.mark.slow
def test_first_failure_can_end_the_run(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch([f"my key is {KEY}", "a red house", "a blue boat"], "on_error=stop", "batch_size=1")
    run = batch.run()
    assert run.code == 4 and "on_error=stop" in run.out
    assert [row["error_kind"] for row in batch.rows() if row["status"] == "failed"] == ["leak"]
    assert len(batch.images()) < 2 and batch.journals() == []


@pytest.mark.slow
def test_five_failures_alike_stop_the_run(make_batch: Callable[..., Batch], tiny_models: Path) -> None:
    lines = [f"a red house, {n}" for n in range(30)]
    batch = make_batch(lines, "batch_size=2", model=tiny_models / "sd_nan")
    run = batch.run()
    assert run.code == 4
    assert "5 different prompts or models in a row failed alike (bad_pixels: the model returned NaN" in run.out
    failed = batch.rows()
    assert 5 <= len(failed) < 15  # those that were in work when the fifth failed
    assert {(row["status"], row["error_kind"]) for row in failed} == {("failed", "bad_pixels")}
    assert batch.images() == set() and batch.journals() == []
    assert "Traceback" not in run.err


@pytest.mark.slow
def test_refused_prompts_with_many_seeds_stop_nothing_else(make_batch: Callable[..., Batch]) -> None:
    refused = [f"my key is {KEY}, {n}" for n in range(6)]
    batch = make_batch([*refused, "a red house"], "seeds={start: 0, count: 7}")
    planned = batch.run("dry_run=true")
    assert "refused       42" in planned.out and "to make       7" in planned.out
    run = batch.run()
    assert run.code == 3, run.err
    assert "49 requested: 7 made, 42 failed (42 leak)" in run.out
    for ended in (planned.out, run.err):  # once a prompt, not once a picture
        assert [line.split(": ")[1] for line in ended.splitlines() if line.startswith("refused: ")] == [
            f"prompt {number} of mine, 7 images" for number in range(1, 7)
        ]
    assert KEY not in run.out + run.err
    assert Counter(row["status"] for row in batch.rows()) == {"failed": 42, "done": 7}


@pytest.mark.slow
def test_prompts_that_are_all_refused_need_no_model(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch([f"my key is {KEY}", {"text": "a boat", "name": "/home/bob/boats"}])
    run = batch.run()
    assert run.code == 3 and "2 requested: 0 made, 2 failed (2 leak); model loads: 0" in run.out
    kept = everything_below(batch.output_dir)
    assert KEY.encode() not in kept and b"/home/bob" not in kept
    again = batch.run()
    assert again.code == 3 and "2 failed before" in again.out and "refused" not in again.err


@pytest.mark.slow
def test_prompt_file_may_be_deleted_while_a_run_goes_on(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch({"name": "mine", "file": "mine.txt"}, "batch_size=4", "bundle_images=4")
    prompts = batch.folder / "conf" / "prompts" / "mine.txt"
    prompts.write_text("".join(f"a red house number {number}\n" for number in range(24)))
    run = batch.start()
    batch.wait_for_images(run, 1)
    prompts.unlink()
    ended = run.wait()
    assert ended.code == 0, ended.err
    batch.assert_whole(24)


@pytest.mark.slow
def test_weights_replaced_after_the_plan_fail_their_jobs_and_no_others(
    make_batch: Callable[..., Batch], tiny_sd: Path, tmp_path: Path
) -> None:
    second = Path(shutil.copytree(tiny_sd, tmp_path / "second"))
    weights = second / "unet" / "diffusion_pytorch_model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-4] + bytes(4))
    batch = make_batch(["a red house"], "seeds={start: 0, count: 12}", "bundle_images=1", "batch_size=1")
    slow = ("sampling.steps=40",)  # the images that are made one by one leave time to replace the second model
    run = batch.start("-m", f"model.source={tiny_sd},{second}", *slow)
    batch.wait_for_images(run, 1)
    weights.with_name("new").write_bytes(content[:-4] + b"\1" * 4)
    weights.with_name("new").rename(weights)
    ended = run.wait()
    assert ended.code == 3, ended.err
    assert "has changed since this was planned; run the same command again" in ended.err
    rows = batch.rows()
    assert {(row["model"], row["status"], row["error_kind"]) for row in rows} == {
        ("sd", "done", None),
        ("second", "failed", "model"),
    }

    planned_anew = batch.run("-m", f"model.source={tiny_sd},{second}", *slow)
    assert planned_anew.code == 0, planned_anew.err
    done = [row for row in batch.rows() if row["model"] == "second" and row["status"] == "done"]
    assert len(done) == 12 and {row["model_sha256"] for row in done}.isdisjoint(row["model_sha256"] for row in rows)


@pytest.mark.slow
def test_job_that_kills_its_process_is_set_aside(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch(["a red house", "a blue boat", "a green poison tree"])
    fault = {"DARKROOM_CRASH_AT": "before_denoise=poison"}
    run = batch.run(env=fault)
    assert run.code == 3, run.err
    assert "2 made, 1 failed (1 quarantined)" in run.out
    assert run.err.count("the worker was lost (killed by SIGKILL)") == 3
    batch.assert_whole(2)
    lost = [
        (row["prompt"].split()[2], row["attempt"], row["status"]) for row in batch.rows() if row["status"] != "done"
    ]
    # The first time it dragged its batch along; after that it died alone.
    assert sorted(lost) == [
        ("boat", 1, "interrupted"),
        ("house", 1, "interrupted"),
        ("poison", 1, "interrupted"),
        ("poison", 2, "interrupted"),
        ("poison", 3, "quarantined"),
    ]
    assert batch.summaries()[-1]["workers_lost"] == 3

    # Set aside means that it costs no process any more, until asked for.
    left = batch.run(env=fault)
    assert left.code == 3 and "1 failed before" in left.out and len(batch.summaries()) == 2
    assert batch.summaries()[-1]["workers_lost"] == 0
    healed = batch.run("retry_failed=true")
    assert healed.code == 0, healed.err
    batch.assert_whole(3)


@pytest.mark.parametrize("stage", ["encode", "decode"])
@pytest.mark.slow
def test_who_only_waits_loses_no_attempt(make_batch: Callable[..., Batch], stage: str) -> None:
    """One job kills the process while the others of its bundle wait: for their turn, or denoised for the decoder."""
    staged = "memory.techniques.staged=true"
    batch = make_batch(["a red house", "a green poison tree", "a blue boat", "a dark wood"], "batch_size=1", staged)
    run = batch.run(env={"DARKROOM_CRASH_AT": f"before_{stage}=poison"})
    assert run.code == 3, run.err
    assert "3 made, 1 failed (1 quarantined)" in run.out
    batch.assert_whole(3)
    lost = [(row["prompt"].split()[2], row["attempt"], row["status"]) for row in batch.rows() if row["error_kind"]]
    # What was finished when the process died, but not on the disk yet, may have been at work as well.
    assert sorted(one for one in lost if one != ("house", 1, "interrupted")) == [
        ("poison", 1, "interrupted"),
        ("poison", 2, "interrupted"),
        ("poison", 3, "quarantined"),
    ]
    attempts = {row["prompt"].split()[2]: row["attempt"] for row in batch.rows() if row["status"] == "done"}
    assert (attempts["boat"], attempts["wood"]) == (1, 1)
    assert batch.summaries()[-1]["workers_lost"] == 3


@pytest.mark.slow
def test_machine_on_which_every_worker_dies_is_given_up(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch(["a red house"], "seeds={start: 0, count: 20}", "batch_size=1")
    run = batch.run(env={"DARKROOM_CRASH_AT": "after_started"})
    assert run.code == 4 and "10 workers in a row were lost" in run.out
    assert batch.journals() == [] and batch.images() == set()
    attempts = Counter(row["job_id"] for row in batch.rows())
    # Each death costs the one job that was at work an attempt, and the others go first: none comes near quarantine.
    assert attempts.total() == 10 and max(attempts.values()) == 1


def test_manifest_that_cannot_be_written_stops_the_run(make_batch: Callable[..., Batch]) -> None:
    """Found out by the worker only, when the batch has long been accepted."""
    batch = make_batch()
    (batch.output_dir / "manifest" / "claims.lock").mkdir(parents=True)
    run = batch.run()
    assert run.code == 4 and "claims.lock: Is a directory" in run.out
    assert "Traceback" not in run.err and batch.summaries()[-1]["workers_lost"] == 0
