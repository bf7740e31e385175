"""A job's id: decided by what decides the picture, and by nothing else."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.job import job_id
from pipeline.request import MAX_SEED, ImageRequest, MemorySettings, ModelSettings

MODEL = ModelSettings(name="demo", source="demo", sha256="a" * 64, architecture="sd")
REQUEST = ImageRequest(
    prompt="a red house",
    negative_prompt="",
    seed=7,
    steps=20,
    guidance_scale=5.0,
    width=64,
    height=64,
    scheduler="Euler",
    clip_skip=None,
    model=MODEL,
    memory=MemorySettings(),
)

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
requests = st.builds(
    ImageRequest,
    prompt=text,
    negative_prompt=text,
    seed=st.integers(0, MAX_SEED),
    steps=st.integers(1, 1000),
    guidance_scale=st.floats(0, 100),
    width=st.integers(8, 512).map(lambda eighth: 8 * eighth),
    height=st.integers(8, 512).map(lambda eighth: 8 * eighth),
    scheduler=st.sampled_from(["Euler", "DDIM"]),
    clip_skip=st.none() | st.integers(1, 12),
    model=st.just(MODEL),
    memory=st.just(MemorySettings()),
)


def test_an_id_never_changes_between_versions() -> None:
    assert job_id(REQUEST) == "14c750924a2ed28d48fe3bed18b868d0858462c516c1ed8de8d1593789dd86a0"


@settings(deadline=None)  # the machine may be busy
@given(requests, requests)
def test_ids_are_equal_if_and_only_if_the_content_is(one: ImageRequest, other: ImageRequest) -> None:
    assert (job_id(one) == job_id(other)) == (one == other)
    assert job_id(replace(one)) == job_id(one)


def test_every_field_that_changes_pixels_changes_the_id() -> None:
    changes: dict[str, Any] = {
        "prompt": "a blue house",
        "negative_prompt": "people",
        "seed": 8,
        "steps": 21,
        "guidance_scale": 5.5,
        "width": 72,
        "height": 72,
        "scheduler": "DDIM",
        "clip_skip": 1,
        "model": replace(MODEL, sha256="b" * 64),
        "memory": MemorySettings(dtype="float16"),
    }
    assert set(changes) == {field.name for field in fields(ImageRequest)}
    variants = [REQUEST, *(replace(REQUEST, **{key: value}) for key, value in changes.items())]
    variants.append(replace(REQUEST, model=replace(MODEL, vae_sha256="c" * 64)))
    variants.append(replace(REQUEST, memory=MemorySettings(vae_tiling=True)))
    assert len({job_id(request) for request in variants}) == len(variants)


def test_what_changes_no_pixel_does_not_change_the_id() -> None:
    same = [
        replace(REQUEST, guidance_scale=5),
        replace(REQUEST, model=replace(MODEL, name="other", source="/elsewhere")),
        replace(REQUEST, memory=MemorySettings(level="aggressive", vae_slicing=True)),
    ]
    assert {job_id(request) for request in same} == {job_id(REQUEST)}
    assert job_id(replace(REQUEST, guidance_scale=-0.0)) == job_id(replace(REQUEST, guidance_scale=0))


def test_texts_do_not_run_into_each_other() -> None:
    assert job_id(replace(REQUEST, prompt="ab", negative_prompt="c")) != job_id(
        replace(REQUEST, prompt="a", negative_prompt="bc")
    )
    assert job_id(replace(REQUEST, prompt='a","prompt":"b')) != job_id(replace(REQUEST, prompt="b"))
