"""A plan makes every job once, leaves out what is there, and loads each model once."""

from __future__ import annotations

from pathlib import Path

from small_plans import batch, plan_of

from jobs.manifest.job_states import JobState, JobStates, job_key
from jobs.manifest.schema import FAILED, INTERRUPTED, QUARANTINED
from jobs.running.report import plan_values
from jobs.running.run_folder import scrubbed
from jobs.terminal import json_text


def test_equal_jobs_are_made_once_and_counted() -> None:
    plan = plan_of(batch("a", "b", "a", seeds=[1, 1, 2]))
    assert (plan.requested, plan.duplicates, plan.to_make) == (9, 5, 4)
    assert {(job.request.prompt, job.request.seed) for job in plan.jobs()} == {("a", 1), ("a", 2), ("b", 1), ("b", 2)}


def test_swept_models_are_loaded_once_each_whatever_the_order() -> None:
    configs = [batch("a", "b", sampling={"steps": steps}) for steps in (5, 5, 9, 9, 7, 7)]
    plan = plan_of(*configs, models=("one", "two"))
    assert (plan.loads, plan.minimum_loads) == (2, 2)
    assert plan.to_make == 12


def test_a_batch_holds_alike_jobs_of_the_batch_size_only() -> None:
    plan = plan_of(batch("a", seeds={"count": 11}, grid={"sampling.steps": [5, 9]}), batch_size=4)
    sizes = []
    for _, batch_of_jobs in plan.batches():
        assert len({one.job.request.steps for one in batch_of_jobs}) == 1
        sizes.append(len(batch_of_jobs))
    assert sizes == [4, 4, 3, 4, 4, 3]


def test_bundles_hold_exactly_the_jobs_of_the_plan() -> None:
    plan = plan_of(batch("a", "b", "a", seeds={"count": 5}, grid={"sampling.width": [64, 96, 64]}))
    bundled = [one.job.id for bundle in plan.bundles() for one in bundle.assignments]
    assert bundled == [job.id for job in plan.jobs()]
    assert len(set(bundled)) == len(bundled) == plan.to_make == 20


def test_what_is_done_is_left_out_unless_resume_is_off() -> None:
    config = batch("a", "b", "c")
    done = [job.id for job in plan_of(config).jobs()][:2]
    states = JobStates(folders={job_key(job_id): "mine" for job_id in done})
    plan = plan_of(config, states=states)
    assert (plan.done, plan.done_in, plan.to_make) == (2, {"mine": 2}, 1)
    assert [job.request.prompt for job in plan.jobs()] == ["c"]
    assert plan_of(config, states=states, resume=False).to_make == 3


def test_failed_jobs_are_left_unless_asked_for_and_count_on() -> None:
    config = batch("a", "b", "c")
    ids = [job.id for job in plan_of(config).jobs()]
    states = JobStates(
        others={
            job_key(ids[0]): JobState(FAILED, 1, "bad_pixels"),
            job_key(ids[1]): JobState(QUARANTINED, 3, "process_died"),
        }
    )
    plan = plan_of(config, states=states)
    assert (plan.failed_before, [job.id for job in plan.jobs()]) == (2, ids[2:])
    again = plan_of(config, states=states, retry_failed=True)
    assert [one.attempt for bundle in again.bundles() for one in bundle.assignments] == [2, 4, 1]


def test_a_job_that_lost_its_process_goes_on_alone() -> None:
    config = batch("a", "b", "c")
    ids = [job.id for job in plan_of(config).jobs()]
    states = JobStates(others={job_key(ids[1]): JobState(INTERRUPTED, 1, "process_died")})
    plan = plan_of(config, states=states)
    assert (plan.to_make, plan.failed_before) == (3, 0)
    bundles = [[(one.job.id, one.attempt) for one in bundle.assignments] for bundle in plan.bundles()]
    assert [(ids[1], 2)] in bundles
    assert sorted(entry for bundle in bundles for entry in bundle) == sorted([(ids[0], 1), (ids[1], 2), (ids[2], 1)])


def test_the_plan_as_json_is_what_a_script_can_use() -> None:
    import json

    values = json.loads(json_text(plan_values(plan_of(batch("a", "a", seeds={"count": 10})), {}, verbose=False)))
    assert (values["requested"], values["duplicates"], values["to_make"]) == (20, 10, 10)
    assert values["seconds"] is None
    assert len(values["jobs"]) == 5


def test_reports_hold_no_folders_of_people(tmp_path: Path) -> None:
    values = {"model": {"source": str(Path.home() / "models" / "mine")}, "name": f"see {Path.home()}/x", "steps": 3}
    assert scrubbed(values) == {"model": {"source": "mine"}, "name": "see ~/x", "steps": 3}


def test_large_pictures_come_in_smaller_batches_and_never_in_none() -> None:
    config = batch("a", seeds={"count": 8}, grid={"sampling.width": [64, 128, 4096]})
    sizes: dict[int, set[int]] = {}
    for _, jobs in plan_of(config, batch_size=8, max_batch_pixels=2 * 128 * 64).batches():
        sizes.setdefault(jobs[0].job.request.width, set()).add(len(jobs))
    assert sizes == {64: {4}, 128: {2}, 4096: {1}}


def test_memory_settings_of_one_precision_share_a_load() -> None:
    configs = [
        batch("a", memory={"level": level, "techniques": {"vae_slicing": level == "balanced"}})
        for level in ("none", "balanced")
    ]
    plan = plan_of(*configs)
    assert (plan.loads, plan.minimum_loads) == (1, 1)


def test_a_bundle_takes_batches_of_other_sampling_along_up_to_its_size() -> None:
    config = batch("a", seeds={"count": 6}, grid={"sampling.steps": [5, 9, 13]})
    bundles = list(plan_of(config, batch_size=4, bundle_images=10).bundles())
    assert [[len(jobs) for jobs in bundle.batches] for bundle in bundles] == [[4, 2, 4], [2, 4, 2]]
    assert [bundle.images_alike for bundle in bundles] == [18, 18]  # all are of one model and size


def test_a_batch_larger_than_a_bundle_is_a_bundle_of_its_own() -> None:
    bundles = list(plan_of(batch("a", seeds={"count": 6}), batch_size=4, bundle_images=1).bundles())
    assert [[len(jobs) for jobs in bundle.batches] for bundle in bundles] == [[4], [2]]


def test_weights_never_share_a_bundle() -> None:
    plan = plan_of(batch("a", "b"), batch("a", "b"), models=("one", "two"))
    assert [{one.job.request.model.name for one in bundle.assignments} for bundle in plan.bundles()] == [
        {"one"},
        {"two"},
    ]
