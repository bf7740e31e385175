"""An image made again from its record is the same image, and where it is not, the reason is told."""

from __future__ import annotations

import os
import re
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jobs.archive.reproduce import EXIT_DIFFERENT, EXIT_EQUAL, compare, remake, reproduce
from pipeline.errors import ConfigError, ModelError, ReadError
from pipeline.generation.generate import generate_batch
from pipeline.loading.load import load
from pipeline.metadata.building import build_record
from pipeline.metadata.metadata_settings import ImageFormat, MetadataSettings, Profile
from pipeline.metadata.naming import NamingSettings
from pipeline.metadata.reading import read_profile, read_record
from pipeline.metadata.record import JobRecord, Record
from pipeline.metadata.saving import save
from pipeline.registry.model_settings import identify
from pipeline.request import GeneratedImage, ImageRequest, MemorySettings
from pipeline.request_id import request_id
from pipeline.schedulers import make_scheduler
from pipeline.system.device import Device

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def images(tiny_sd: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three images of one batch: an ancestral sampler, own negative prompts, one per format."""
    settings, folder = identify(str(tiny_sd))
    memory = MemorySettings()
    requests = [
        ImageRequest(prompt, "grey", seed, 3, 6.0, folder.width, folder.height, "Euler a", 1, settings, memory)
        for prompt, seed in (("a house", 1), ("a boat", 2), ("a tree", 3))
    ]
    outcomes = generate_batch(load(settings, memory, "cpu"), requests)
    output = tmp_path_factory.mktemp("batch")
    paths = []
    for outcome, image_format in zip(outcomes, ("png", "jpeg", "webp"), strict=True):
        assert isinstance(outcome, GeneratedImage)
        metadata = MetadataSettings()
        record = build_record(
            outcome,
            image_id=str(uuid.uuid4()),
            created=datetime.now(UTC),
            output_format=image_format,  # type: ignore[arg-type]
            quality=metadata.quality_for(image_format),  # type: ignore[arg-type]
            origin=JobRecord(id=request_id(outcome.request), name="batch"),
        )
        paths.append(save(outcome, record, output, NamingSettings(), metadata))
    return paths


def test_engine_settings_stand_in_place_of_the_record_s(
    images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    before = torch.get_num_threads()
    try:
        reproduce(images[0], check=True, output_dir=tmp_path, model=None, engine=[f"engine.cpu_threads={before + 1}"])
    finally:
        torch.set_num_threads(before)
    assert f"cpu threads: was {before}, is {before + 1}" in capsys.readouterr().out
    for wrong in ("engine.cpu_threads=many", "engine.recycle_images=3", "cpu_threads=3", "engine.cpu_threads"):
        with pytest.raises(ConfigError, match="engine"):
            reproduce(images[0], check=True, output_dir=tmp_path, model=None, engine=[wrong])


def test_every_image_of_a_batch_is_remade_to_the_pixel_lossy_ones_too(
    images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for image in images:
        assert reproduce(image, check=True, output_dir=tmp_path, model=None) == EXIT_EQUAL
    assert capsys.readouterr().out.count("equal, pixel for pixel") == 3


def test_an_image_is_written_again_and_never_over_the_old_one(
    images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = images[0].read_bytes()
    assert reproduce(images[0], check=False, output_dir=tmp_path, model=None) == EXIT_EQUAL
    (again,) = (tmp_path / "reproduced").rglob("*.png")
    assert read_record(again).pixels_sha256 == read_record(images[0]).pixels_sha256
    assert images[0].read_bytes() == before


@pytest.mark.parametrize("profile", ["private", "minimal"])
@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_the_copy_tells_no_more_than_the_original(
    profile: Profile,
    image_format: ImageFormat,
    images: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record = read_record(images[0])
    image = remake(record)
    metadata = MetadataSettings(profile)
    again = build_record(
        image,
        image_id=str(uuid.uuid4()),
        created=datetime.now(UTC),
        output_format=image_format,
        quality=metadata.quality_for(image_format),
        origin=record.job,
    )
    original = save(image, again, tmp_path / "original", NamingSettings(), metadata)
    assert read_profile(original) == profile
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("jobs.archive.reproduce.describe", lambda *_: type("Description", (), {"record": again}))
    reproduce(original, check=False, output_dir=tmp_path, model=None)
    (copy,) = (tmp_path / "reproduced").iterdir()
    assert read_profile(copy) == profile
    if profile == "private":
        assert b"a house" not in copy.read_bytes()


def test_a_difference_is_measured_and_the_changed_environment_named(
    images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = read_record(images[0])
    versions = {**record.runtime.versions, "torch": "1.0"}
    changed = record.model_copy(
        update={"seed": 99, "runtime": record.runtime.model_copy(update={"versions": versions})}
    )
    result = compare(changed, remake(changed), images[0])
    assert not result.equal
    assert not result.noise_equal
    assert result.max_difference is not None
    assert result.max_difference > 0
    assert any(line.startswith("torch: was 1.0, is ") for line in result.differences)
    monkeypatch.setattr("jobs.archive.reproduce.describe", lambda *_: type("Description", (), {"record": changed}))
    assert reproduce(images[0], check=True, output_dir=tmp_path, model=None) == EXIT_DIFFERENT
    assert "different by at most" in capsys.readouterr().out


def with_runtime(image: Path, **changes: object) -> Record:
    record = read_record(image)
    return record.model_copy(update={"runtime": record.runtime.model_copy(update=changes)})


def test_what_was_switched_on_for_speed_is_told_before_it_is_put_on_again(
    images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unusual = with_runtime(images[0], attention_backend="sage", compile="blocks", deterministic=False)
    stages = {"decode": {"allocated": 9, "refused": 1}}
    measured = unusual.measured.model_copy(update={"stages": stages})
    unusual = unusual.model_copy(update={"step_cache": "first_block", "measured": measured})
    said: list[str] = []

    def remade(*_: object) -> None:
        said.append(capsys.readouterr().out)
        raise ModelError("far enough")

    monkeypatch.setattr("jobs.archive.reproduce.remake", remade)
    for record in (unusual, read_record(images[0])):
        monkeypatch.setattr(
            "jobs.archive.reproduce.describe", lambda *_, it=record: type("Description", (), {"record": it})
        )
        with pytest.raises(ModelError):
            reproduce(images[0], check=True, output_dir=tmp_path, model=None)
    assert said == [
        f"{images[0]}: was made with step cache first_block, attention sage, compiled denoiser (blocks), kernels that "
        "are not deterministic, replacement kernels, because the device was nearly full\n",
        "",
    ]


@pytest.mark.parametrize(("recorded", "taken"), [(None, ":16:8"), (":4096:8", ":4096:8")])
def test_on_a_gpu_cublas_gets_the_workspace_of_the_record(
    recorded: str | None, taken: str, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records that do not name one are of the time when it was always the same."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "mine")
    monkeypatch.setattr("jobs.archive.reproduce._device", lambda record: Device("cuda"))

    def load(*_: object, **__: object) -> None:
        raise ModelError(os.environ["CUBLAS_WORKSPACE_CONFIG"])

    monkeypatch.setattr("pipeline.loading.load.load", load)
    with pytest.raises(ModelError, match=taken):
        remake(with_runtime(images[0], device="cuda", cublas_workspace=recorded))


def test_what_an_older_record_does_not_have_is_not_called_another(images: list[Path]) -> None:
    record = read_record(images[0])
    image = remake(record)
    assert not {"cublas_workspace", "attention_kernels"} & record.runtime.model_dump().keys()
    image.runtime.update(cublas_workspace=":4096:8", attention_kernels="math")
    assert compare(record, image, images[0]).differences == ()
    newer = with_runtime(images[0], cublas_workspace=":16:8")
    assert Record.from_json(newer.to_json()) == newer
    assert compare(newer, image, images[0]).differences == ("cublas workspace: was :16:8, is :4096:8",)


def test_weights_that_are_nowhere_are_asked_for(
    images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    with pytest.raises(ModelError, match="--model"):
        reproduce(images[0], check=True, output_dir=tmp_path, model=None)


def test_an_image_of_another_program_cannot_be_remade(tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "foreign.png"
    Image.new("RGB", (8, 8), "red").save(path)
    with pytest.raises(ReadError, match=r"foreign\.png"):
        reproduce(path, check=True, output_dir=tmp_path, model=None)


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("scheduler", {"name": "os.system"}, "'os.system' is no scheduler"),
        ("scheduler", {"name": "DiffusionPipeline"}, "'DiffusionPipeline' is no scheduler"),
        ("scheduler", {"options": {"colour": "red"}}, "takes no option 'colour'"),
        ("memory", {"techniques": ["__class__"]}, "'__class__' under memory"),
        ("runtime", {"attention_backend": "hub"}, "'hub' under runtime.attention_backend"),
        ("", {"step_cache": "pickle"}, "'pickle' under step_cache"),
        ("", {"step_cache": "first_block"}, "sampling.step_cache"),
        ("", {"clip_skip": 32}, "sampling.clip_skip"),
    ],
)
def test_names_in_a_record_are_looked_up_before_anything_is_loaded(
    part: str, change: dict[str, object], words: str, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    record = read_record(images[0])
    inner = {part: getattr(record, part).model_copy(update=change)} if part else change
    monkeypatch.setattr("pipeline.loading.load.load", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises((ReadError, ConfigError), match=re.escape(words)) as caught:
        remake(record.model_copy(update=inner))
    assert "\n" not in str(caught.value)


def test_a_scheduler_is_made_from_the_table_alone() -> None:
    from diffusers import EulerDiscreteScheduler

    with pytest.raises(ValueError, match="no known scheduler"):
        make_scheduler("DiffusionPipeline", EulerDiscreteScheduler())
