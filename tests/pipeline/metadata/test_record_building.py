"""The record: built by allow-list, strict, and equal to itself after a trip through JSON."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_texts import texts

from pipeline.errors import ConfigError, JobFailure
from pipeline.metadata.building import RecordInvalid, build_record
from pipeline.metadata.metadata_settings import MetadataSettings
from pipeline.metadata.record import JobRecord, Record, pixel_hash
from pipeline.version import VERSION

SHA = "0" * 64


def test_private_keys_paths_and_infinities_do_not_enter_the_record(sample: Callable[..., Any]) -> None:
    record = sample().record
    assert record.scheduler.config == {
        "num_train_timesteps": 1000,
        "beta_schedule": "scaled_linear",
        "lambda_min_clipped": "-inf",
        "trained_betas": None,
        "sizes": [1, 2.5],
    }
    assert "somebody" not in record.to_json()
    json.loads(record.to_json(), parse_constant=pytest.fail)


@pytest.mark.parametrize("name", ["/home/anna/models/demo", "C:\\Users\\anna\\demo", "models/demo/", "demo"])
def test_folders_are_taken_off_the_names_of_weights(sample: Callable[..., Any], name: str) -> None:
    assert sample(model=name).record.model.name == "demo"


def test_time_is_kept_in_utc_to_the_millisecond(sample: Callable[..., Any]) -> None:
    local = datetime(2025, 1, 11, 14, 30, 22, 123999, tzinfo=timezone(timedelta(hours=5)))
    record = sample(created=local).record
    assert json.loads(record.to_json())["created"] == "2025-01-11T09:30:22.123Z"
    assert Record.from_json(record.to_json()) == record


def test_a_time_without_zone_is_a_mistake(sample: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="time zone"):
        sample(created=datetime(2025, 1, 11))


def test_what_no_record_can_hold_fails_the_job_in_one_line(sample: Callable[..., Any]) -> None:
    with pytest.raises(RecordInvalid, match="surrogate") as caught:
        sample("lone \ud800 surrogate")
    assert isinstance(caught.value, JobFailure) and "\n" not in str(caught.value)


def test_arrays_become_lists_and_objects_are_refused(sample: Callable[..., Any]) -> None:
    image = sample().image
    facts: dict[str, Any] = {
        "image_id": sample().record.id,
        "created": sample().record.created,
        "output_format": "png",
        "quality": None,
        "origin": JobRecord(id=SHA),
    }
    image.scheduler_config["trained_betas"] = np.array([0.5, np.inf])
    try:
        assert build_record(image, **facts).scheduler.config["trained_betas"] == [0.5, "inf"]
        image.scheduler_config["trained_betas"] = object()
        with pytest.raises(RecordInvalid, match=r"scheduler\.config\.trained_betas"):
            build_record(image, **facts)
    finally:
        image.scheduler_config["trained_betas"] = None


def test_pixels_are_hashed_with_their_shape(sample: Callable[..., Any]) -> None:
    made = sample()
    assert made.record.pixels_sha256 == pixel_hash(40, 24, made.image.pixels.tobytes())
    assert made.record.pixels_sha256 != pixel_hash(24, 40, made.image.pixels.tobytes())


def test_the_version_is_that_of_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION
    assert re.fullmatch(r"\d+\.\d+\.\d+", VERSION)


def test_metadata_settings_report_every_fault() -> None:
    with pytest.raises(ConfigError) as caught:
        MetadataSettings(profile="secret", quality=0)  # type: ignore[arg-type]
    assert [fault.partition(":")[0] for fault in caught.value.faults] == [
        "metadata.profile",
        "metadata.quality",
    ]
    with pytest.raises(ConfigError, match="sidecar"):
        MetadataSettings(profile="private", sidecar=True)


@given(
    prompt=texts(60),
    tags=st.lists(texts(10), max_size=4),
    seed=st.integers(0, 2**53 - 1),
    guidance_scale=st.floats(0, 100, allow_nan=False),
    config=st.dictionaries(
        texts(8),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | texts(8),
            lambda inner: st.lists(inner, max_size=3) | st.tuples(inner),
            max_leaves=5,
        ),
        max_size=4,
    ),
)
def test_a_record_survives_json(
    sample: Callable[..., Any],
    prompt: str,
    tags: list[str],
    seed: int,
    guidance_scale: float,
    config: dict[str, Any],
) -> None:
    made = sample(prompt, tags=tuple(tags), seed=seed, guidance_scale=guidance_scale)
    scheduler_config = dict(made.image.scheduler_config)
    made.image.scheduler_config.clear()
    made.image.scheduler_config.update(config)
    try:
        record = build_record(
            made.image,
            image_id=made.record.id,
            created=made.record.created,
            output_format="png",
            quality=None,
            origin=made.record.job,
        )
    finally:
        made.image.scheduler_config.clear()
        made.image.scheduler_config.update(scheduler_config)
    text = record.to_json()
    json.loads(text, parse_constant=pytest.fail)
    assert Record.from_json(text) == record
    assert Record.from_json(text.encode()).to_json() == text
    assert not any(key.startswith("_") for key in record.scheduler.config)
