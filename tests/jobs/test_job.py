"""A job's id: decided by what decides the picture, and by nothing else."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pipeline.memory.planning.techniques import TECHNIQUES
from pipeline.request import (
    MAX_SEED,
    Adapters,
    ControlNetWeights,
    EmbeddingWeights,
    ImageRequest,
    InitImage,
    IpAdapterWeights,
    LoraWeights,
    MemorySettings,
    ModelSettings,
    ReferenceImage,
)
from pipeline.request_id import request_id as job_id

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

LORA = LoraWeights("style", "/loras/style.safetensors", "1" * 64, 0.8)
PICTURE = ReferenceImage("pose.png", "/pictures/pose.png", "2" * 64)
CONTROLNET = ControlNetWeights("canny", "/nets/canny", "3" * 64, PICTURE)
IP_ADAPTER = IpAdapterWeights("face", "/ip/face.safetensors", "4" * 64, PICTURE)
OTHER_PICTURE = replace(PICTURE, sha256="5" * 64)
ADAPTERS = [
    Adapters(loras=(replace(LORA, weight=0.9),)),
    Adapters(loras=(replace(LORA, sha256="6" * 64),)),
    Adapters(loras=(LORA, replace(LORA, sha256="6" * 64))),
    Adapters(embeddings=(EmbeddingWeights("cat", "/e.safetensors", "7" * 64, "<cat>"),)),
    Adapters(embeddings=(EmbeddingWeights("cat", "/e.safetensors", "7" * 64, "<dog>"),)),
    Adapters(controlnets=(CONTROLNET,)),
    *(
        Adapters(controlnets=(replace(CONTROLNET, **{key: value}),))
        for key, value in {
            "image": OTHER_PICTURE,
            "preprocess": "canny",
            "strength": 0.5,
            "start": 0.1,
            "end": 0.9,
            "sha256": "8" * 64,
        }.items()
    ),
    Adapters(ip_adapters=(IP_ADAPTER,)),
    Adapters(ip_adapters=(replace(IP_ADAPTER, scale=0.5),)),
    Adapters(ip_adapters=(replace(IP_ADAPTER, image=OTHER_PICTURE),)),
    Adapters(ip_adapters=(replace(IP_ADAPTER, encoder_sha256="9" * 64),)),
    Adapters(init=InitImage(PICTURE)),
    Adapters(init=InitImage(PICTURE, 0.3)),
    Adapters(init=InitImage(OTHER_PICTURE)),
]
LOSSY = tuple(name for name, technique in TECHNIQUES.items() if technique.lossy)
EXACT = tuple(name for name, technique in TECHNIQUES.items() if not technique.lossy)

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
    assert job_id(REQUEST) == "278baf24624d6940f63519cdfc211413f21b79869421e780d599ed91adcf437c"


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
        "scheduler_options": (("timestep_spacing", "trailing"),),
        "step_cache": "first_block",
        "adapters": Adapters(loras=(LORA,)),
    }
    assert set(changes) == {field.name for field in fields(ImageRequest)}
    variants = [REQUEST, *(replace(REQUEST, **{key: value}) for key, value in changes.items())]
    variants.append(replace(REQUEST, model=replace(MODEL, vae_sha256="c" * 64)))
    variants += [
        replace(REQUEST, model=replace(MODEL, **{key: value}))
        for key, value in {
            "config_sha256": "d" * 64,
            "prediction_type": "v_prediction",
            "max_sequence_length": 256,
            "safety_checker": True,
        }.items()
    ]
    variants += [replace(REQUEST, memory=MemorySettings(techniques=(name,))) for name in LOSSY if name != "tiny_vae"]
    variants += [
        replace(REQUEST, memory=MemorySettings(techniques=("tiny_vae",), tiny_vae_sha256=sha256))
        for sha256 in ("e" * 64, "f" * 64)
    ]
    variants += [
        replace(REQUEST, memory=MemorySettings(exact=True)),
        replace(REQUEST, memory=MemorySettings(off=LOSSY)),
    ]
    variants += [replace(REQUEST, adapters=adapters) for adapters in ADAPTERS]
    assert len({job_id(request) for request in variants}) == len(variants)


def test_what_changes_no_pixel_does_not_change_the_id() -> None:
    same = [
        replace(REQUEST, guidance_scale=5),
        replace(REQUEST, model=replace(MODEL, name="other", source="/elsewhere")),
        replace(REQUEST, memory=MemorySettings(level="aggressive", techniques=EXACT, off=EXACT, budget_bytes=1)),
        replace(REQUEST, model=replace(MODEL, config_source="/somewhere", vae_source="/elsewhere")),
    ]
    assert {job_id(request) for request in same} == {job_id(REQUEST)}
    assert job_id(replace(REQUEST, guidance_scale=-0.0)) == job_id(replace(REQUEST, guidance_scale=0))


def test_texts_do_not_run_into_each_other() -> None:
    assert job_id(replace(REQUEST, prompt="ab", negative_prompt="c")) != job_id(
        replace(REQUEST, prompt="a", negative_prompt="bc")
    )
    assert job_id(replace(REQUEST, prompt='a","prompt":"b')) != job_id(replace(REQUEST, prompt="b"))


def test_names_places_and_order_of_adapters_do_not_count() -> None:
    other = replace(LORA, sha256="6" * 64)
    one = replace(REQUEST, adapters=Adapters(loras=(LORA, other)))
    same = [
        Adapters(loras=(other, LORA)),
        Adapters(loras=(replace(LORA, name="else", source="/moved"), other)),
    ]
    assert {job_id(replace(REQUEST, adapters=adapters)) for adapters in same} == {job_id(one)}
