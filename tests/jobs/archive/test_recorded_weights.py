"""What a picture was made of is found by its content after folders were moved and renamed, or the way is named."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from tiny_checkpoints import write_checkpoint

from jobs.archive.recorded_weights import Places, find_model, find_tiny_vae
from jobs.archive.reproduce import EXIT_EQUAL, reproduce
from pipeline.errors import ModelError
from pipeline.generation.generate import generate_batch
from pipeline.loading.load import load
from pipeline.memory.planning.memory_request import requested_memory
from pipeline.metadata.building import build_record
from pipeline.metadata.metadata_settings import MetadataSettings
from pipeline.metadata.naming import NamingSettings
from pipeline.metadata.reading import read_record
from pipeline.metadata.record import JobRecord, MemoryRecord, ModelRecord, Record
from pipeline.metadata.saving import save
from pipeline.registry.database import Registry
from pipeline.registry.model_settings import identify
from pipeline.registry.scanning import scan
from pipeline.request import GeneratedImage, ImageRequest, MemorySettings
from pipeline.request_id import request_id


def take_in(folder: Path) -> None:
    with Registry() as registry:
        scan(registry, folder)


@pytest.fixture
def moved(tiny: Callable[[str], Path], tmp_path: Path, home: Path) -> tuple[Path, Path]:
    """A picture of a single file, the folder for the rest and a VAE; all of them lie in `new` now, by other names."""
    old, new = tmp_path / "old", tmp_path / "new"
    rest = Path(shutil.copytree(tiny("sd15"), old / "rest"))
    vae = Path(shutil.copytree(rest / "vae", old / "good-vae"))
    config = (vae / "config.json").read_text()
    (vae / "config.json").write_text(config.rstrip()[:-1].rstrip() + ', "remark": 1}')
    file = write_checkpoint(rest, old / "dream.safetensors")
    settings, files = identify(str(file), config=str(rest), vae=str(vae))
    memory = MemorySettings()
    request = ImageRequest("a house", "", 1, 2, 3.0, files.width, files.height, "Euler", None, settings, memory)
    (outcome,) = generate_batch(load(settings, memory, "cpu"), [request])
    assert isinstance(outcome, GeneratedImage)
    record = build_record(
        outcome,
        image_id=str(uuid.uuid4()),
        created=datetime.now(UTC),
        output_format="png",
        quality=None,
        origin=JobRecord(id=request_id(request)),
    )
    image = save(outcome, record, tmp_path / "out", NamingSettings(), MetadataSettings())
    new.mkdir()
    for before, after in ((file, "x.safetensors"), (rest, "y"), (vae, "z")):
        before.rename(new / after)
    return image, new


@pytest.mark.slow
def test_a_moved_file_with_its_configuration_and_vae_is_found(
    moved: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, new = moved
    assert read_record(image).model.single_file
    way = "--files in which folder it is, or scan its folder with: darkroom models scan FOLDER"
    with pytest.raises(ModelError, match=f"the VAE good-vae .*{way}"):
        reproduce(image, check=True, output_dir=tmp_path, model=None)
    assert reproduce(image, check=True, output_dir=tmp_path, model=None, files=new) == EXIT_EQUAL
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another cache"))  # nothing was seen anywhere
    take_in(new)
    assert reproduce(image, check=True, output_dir=tmp_path, model=None) == EXIT_EQUAL
    other = new / "y/model_index.json"
    other.write_text(other.read_text().replace("StableDiffusionPipeline", "StableDiffusionPipeline "))
    with pytest.raises(ModelError, match=r"configuration folder \(model\.config\) of dream .*--files"):
        reproduce(image, check=True, output_dir=tmp_path, model=str(new / "x.safetensors"), files=new / "z")


def test_a_renamed_folder_is_found_after_a_scan(
    tiny: Callable[[str], Path], tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Path(shutil.copytree(tiny("sd15"), tmp_path / "models/before"))
    settings, _ = identify(str(before))
    assert not settings.single_file
    said = {"name": settings.name, "sha256": settings.sha256, "architecture": settings.architecture}
    record = Record.model_construct(model=ModelRecord(**said), vae=None)
    before.rename(tmp_path / "models/after")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another cache"))
    with pytest.raises(ModelError, match="--model where it is, or scan its folder with: darkroom models scan FOLDER"):
        find_model(record, None, Places())
    take_in(tmp_path / "models")
    assert Path(find_model(record, None, Places())[0].source) == tmp_path / "models/after"


def test_a_moved_tiny_vae_is_found(tmp_path: Path, home: Path) -> None:
    from diffusers import AutoencoderTiny

    torch.manual_seed(0)
    folder = tmp_path / "taesd"
    blocks = {f"{side}_block_out_channels": (8, 8) for side in ("encoder", "decoder")}
    counts = {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1)}
    AutoencoderTiny(**blocks, **counts, latent_channels=4).save_pretrained(folder)
    asked = requested_memory(
        "none", "float32", {"tiny_vae": True}, "cpu", exact=False, budget_gb=None, tiny_vae=str(folder)
    )
    memory = MemoryRecord(
        level="none", dtype="float32", vae_slicing=False, vae_tiling=False, tiny_vae_sha256=asked.tiny_vae_sha256
    )
    record = Record.model_construct(memory=memory)
    (tmp_path / "new").mkdir()
    folder.rename(tmp_path / "new/small")
    with pytest.raises(ModelError, match=r"the tiny VAE .*--files"):
        find_tiny_vae(record, Places())
    assert find_tiny_vae(record, Places(tmp_path / "new")) == str(tmp_path / "new/small")
    take_in(tmp_path / "new")
    assert find_tiny_vae(record, Places()) == str(tmp_path / "new/small")
