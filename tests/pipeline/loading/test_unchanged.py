"""Weights that change between plan and load, while they are read, and while they are mapped into memory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_checkpoints import write_checkpoint, write_vae
from tiny_models import write_tiny_sd
from tiny_requests import request_for

from pipeline.errors import JobFailure, ModelError, WeightsChanged
from pipeline.generation.current_model import CurrentModel
from pipeline.generation.generate import generate_batch
from pipeline.loading import conversion
from pipeline.loading.components import parts_of
from pipeline.loading.load import load
from pipeline.loading.unchanged import planned_files
from pipeline.memory.device.pool import Pool
from pipeline.memory.planning.memory_request import requested_memory
from pipeline.registry.model_settings import identify
from pipeline.request import MemorySettings, SpeedSettings

# Copies of a shared model that change under their hashes: nobody else may look them up by these.
pytestmark = pytest.mark.usefixtures("home")

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def mine(tiny: Callable[[str], Path], tmp_path: Path) -> Path:
    """A model folder, beside a single-file checkpoint and a VAE of the same model and of another one."""
    shutil.copytree(tiny("sd15"), tmp_path / "mine")
    write_tiny_sd(tmp_path / "other", seed=7)
    for name in ("mine", "other"):
        write_checkpoint(tmp_path / name, tmp_path / f"{name}.safetensors")
        write_vae(tmp_path / name, tmp_path / f"{name}_vae.safetensors")
    return tmp_path


PLACES: list[tuple[str, dict[str, str], str, str]] = [
    ("mine", {}, f"mine/unet/{WEIGHTS}", "model mine"),
    ("mine", {}, "mine/text_encoder/model.safetensors", "model mine"),
    ("mine", {}, "mine/scheduler/scheduler_config.json", "model mine"),
    ("mine.safetensors", {"config": "mine"}, "mine.safetensors", "model mine"),
    ("mine.safetensors", {"config": "mine"}, "mine/tokenizer/vocab.json", "model mine: its model.config"),
    ("mine", {"vae": "mine_vae.safetensors"}, "mine_vae.safetensors", "vae mine_vae"),
    ("mine", {"vae": "other/vae"}, f"other/vae/{WEIGHTS}", "vae vae"),
    ("mine", {"vae": "other/vae"}, "other/vae/config.json", "vae vae"),
]


@pytest.mark.parametrize(("source", "beside", "changed", "what"), PLACES)
def test_what_changed_after_the_plan_is_not_loaded(
    mine: Path, source: str, beside: dict[str, str], changed: str, what: str
) -> None:
    settings, _ = identify(str(mine / source), **{key: str(mine / place) for key, place in beside.items()})
    replace_content(mine / changed)
    with pytest.raises(WeightsChanged) as refused:
        load(settings, MemorySettings(), "cpu")
    assert str(refused.value).startswith(f"{what} has changed since this was planned; run the same command again")


def test_a_vae_folder_that_was_emptied_is_said_to_have_no_weights(mine: Path) -> None:
    settings, files = identify(str(mine / "mine"), vae=str(mine / "other" / "vae"))
    for file in (mine / "other" / "vae").iterdir():
        file.unlink()
    with pytest.raises(ModelError, match="vae/ has no weights"):
        parts_of(files, settings, MemorySettings())


def test_a_tiny_vae_that_changed_is_not_loaded(mine: Path) -> None:
    from diffusers import AutoencoderTiny

    small = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8), "latent_channels": 4}
    AutoencoderTiny(**small, num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1)).save_pretrained(mine / "taesd")
    memory = requested_memory("none", "float32", {"tiny_vae": True}, "cpu", tiny_vae=str(mine / "taesd"))
    settings, _ = identify(str(mine / "mine"))
    load(settings, memory, "cpu")
    replace_content(mine / "taesd" / WEIGHTS)
    with pytest.raises(WeightsChanged, match="tiny VAE taesd has changed"):
        load(settings, memory, "cpu")


def test_what_was_only_touched_is_loaded(mine: Path) -> None:
    settings, _ = identify(str(mine / "mine"))
    os.utime(mine / "mine" / "unet" / WEIGHTS)
    shutil.copyfile(mine / "mine" / "vae" / WEIGHTS, mine / "again")
    (mine / "again").rename(mine / "mine" / "vae" / WEIGHTS)
    load(settings, MemorySettings(), "cpu")


def test_unchanged_files_are_not_read_for_it(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, files = identify(str(mine / "mine"))
    monkeypatch.setattr("pipeline.weights.hashes._hash_file", None)  # whoever hashes fails
    assert planned_files(settings, MemorySettings(), files)


def test_what_changes_while_it_is_read_is_kept_nowhere(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, _ = identify(str(mine / "mine"))
    weights = mine / "mine" / "unet" / WEIGHTS
    monkeypatch.setattr(conversion, "load_weights", after(conversion.load_weights, lambda: replace_content(weights)))
    pool = Pool()
    with pytest.raises(WeightsChanged, match=rf"model mine: unet/{WEIGHTS} has changed since this was planned"):
        load(settings, MemorySettings(), "cpu", pool=pool)
    assert pool.loads == 0


@pytest.mark.slow
def test_weights_that_are_written_over_while_they_are_mapped_make_no_picture(mine: Path) -> None:
    settings, _ = identify(str(mine / "mine"))
    current = CurrentModel("cpu", Pool(), SpeedSettings())
    model = current.get(settings, MemorySettings(), MemorySettings())
    weights = mine / "mine" / "unet" / WEIGHTS
    before = weights.read_bytes()
    with weights.open("r+b") as file:  # as `cp` and `rsync --inplace` do
        file.write((mine / "other" / "unet" / WEIGHTS).read_bytes())
    (refused,) = generate_batch(model, [request_for(model)], remember=False)
    assert isinstance(refused, JobFailure) and "model mine has changed since this was planned" in str(refused)
    with pytest.raises(WeightsChanged):
        current.get(settings, MemorySettings(), MemorySettings())

    weights.write_bytes(before)
    model = current.get(settings, MemorySettings(), MemorySettings())
    assert not isinstance(generate_batch(model, [request_for(model)], remember=False)[0], JobFailure)


def test_a_file_that_takes_the_place_of_a_mapped_one_stops_nothing(mine: Path) -> None:
    """What is mapped stays as it was: a picture of it is one of the planned weights."""
    settings, _ = identify(str(mine / "mine"))
    current = CurrentModel("cpu", Pool(), SpeedSettings())
    model = current.get(settings, MemorySettings(), MemorySettings())
    (first,) = generate_batch(model, [request_for(model)], remember=False)
    (mine / "other" / "unet" / WEIGHTS).rename(mine / "mine" / "unet" / WEIGHTS)
    assert current.get(settings, MemorySettings(), MemorySettings()) is model
    (second,) = generate_batch(model, [request_for(model)], remember=False)
    assert not isinstance(first, JobFailure) and not isinstance(second, JobFailure)
    assert (first.pixels == second.pixels).all()


def replace_content(file: Path) -> None:
    """Another sound file in its place."""
    content = file.read_bytes()
    if file.suffix == ".json":
        content += b"\n"
    else:
        content = content[:-4] + bytes(255 - byte for byte in content[-4:])
    aside = file.with_name("aside")
    aside.write_bytes(content)
    aside.rename(file)


def after(function: Callable[..., object], then: Callable[[], object]) -> Callable[..., object]:
    def both(*arguments: object) -> object:
        result = function(*arguments)
        then()
        return result

    return both
