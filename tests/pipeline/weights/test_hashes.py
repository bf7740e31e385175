"""Who a model is: hashes of content, remembered until the file changes, and where it was last seen."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from published_weights import diffusers_shapes, write_header

from pipeline.errors import ModelError
from pipeline.registry.model_settings import identify
from pipeline.weights.hashes import cache_file, file_hash, known_places, remember_place, tensor_hash
from pipeline.weights.references import EMBEDDED

Tiny = Callable[[str], Path]


@pytest.fixture
def own_hashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of hashes of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return cache_file()


def safetensors(path: Path, body: bytes, remark: str) -> Path:
    header = json.dumps(
        {"__metadata__": {"title": remark}, "a": {"dtype": "U8", "shape": [len(body)], "data_offsets": [0, len(body)]}}
    ).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + body)
    return path


def test_tensor_hash_is_autov3_and_does_not_see_remarks(own_hashes: Path, tmp_path: Path) -> None:
    one = safetensors(tmp_path / "one.safetensors", b"weights", "mine")
    two = safetensors(tmp_path / "two.safetensors", b"weights", "renamed by somebody")
    assert tensor_hash(one) == tensor_hash(two) == hashlib.sha256(b"weights").hexdigest()
    assert file_hash(one) != file_hash(two)
    assert file_hash(one) == hashlib.sha256(one.read_bytes()).hexdigest()


def test_hashes_are_remembered_until_the_file_changes(own_hashes: Path, tmp_path: Path) -> None:
    path = safetensors(tmp_path / "one.safetensors", b"weights", "mine")
    before, tensors = file_hash(path), tensor_hash(path)
    stat = path.stat()
    path.write_bytes(path.read_bytes().replace(b"weights", b"WEIGHTS"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (file_hash(path), tensor_hash(path)) == (before, tensors)  # nothing was read
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert file_hash(path) != before and tensor_hash(path) == hashlib.sha256(b"WEIGHTS").hexdigest()


def test_unusable_cache_costs_time_and_nothing_else(own_hashes: Path, tmp_path: Path) -> None:
    path = safetensors(tmp_path / "one.safetensors", b"weights", "mine")
    own_hashes.parent.mkdir(parents=True)
    own_hashes.write_bytes(b"no database, but long enough to be looked at" * 100)
    assert file_hash(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    remember_place("0" * 64, path)  # in a new file, instead of the damaged one
    assert known_places("0" * 64) == [path]


def test_file_that_is_gone_is_an_error_and_no_hash(own_hashes: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        file_hash(tmp_path / "gone.safetensors")


def test_places_are_found_newest_first_while_something_lies_there(own_hashes: Path, tmp_path: Path) -> None:
    places = [tmp_path / name for name in ("a", "b", "c")]
    for place in places:
        place.mkdir()
        remember_place("1" * 64, place)
    remember_place("1" * 64, places[0])
    places[1].rmdir()
    assert known_places("1" * 64) == [places[0], places[2]]
    assert known_places("2" * 64) == []


def test_model_is_identified_by_content_and_its_places_are_remembered(
    own_hashes: Path, tiny: Tiny, tmp_path: Path
) -> None:
    file = Path(
        shutil.copy(tiny("flux") / "transformer/diffusion_pytorch_model.safetensors", tmp_path / "My Flux.safetensors")
    )
    settings, files = identify(str(file), config=str(tiny("flux")), vae=str(tiny("z_image") / "vae"))
    assert (settings.name, settings.vae) == ("My-Flux", "vae")
    assert settings.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert settings.architecture == "FluxPipeline" and files.layout == "denoiser"
    assert settings.config_source == str(tiny("flux")) and settings.vae_source == str(tiny("z_image") / "vae")
    assert settings.config_sha256 and settings.vae_sha256
    assert known_places(settings.sha256) == [file]
    assert known_places(settings.config_sha256) == [tiny("flux")]
    assert known_places(settings.vae_sha256) == [tiny("z_image") / "vae"]


def test_configuration_is_hashed_by_what_it_contributes(own_hashes: Path, tiny: Tiny, tmp_path: Path) -> None:
    file = tiny("flux") / "transformer/diffusion_pytorch_model.safetensors"
    folder = Path(shutil.copytree(tiny("flux"), tmp_path / "rest"))
    before = identify(str(file), config=str(folder))[0].config_sha256
    (folder / "transformer/diffusion_pytorch_model.safetensors").unlink()  # the file brings these itself
    assert identify(str(file), config=str(folder))[0].config_sha256 == before
    with (folder / "text_encoder/model.safetensors").open("r+b") as weights:
        weights.seek(-1, os.SEEK_END)
        weights.write(b"\x01")
    assert identify(str(file), config=str(folder))[0].config_sha256 != before


def test_folder_hash_stays_what_it_was(own_hashes: Path) -> None:
    """Images that exist name the demo model so: SHA-256 over `hash  path` lines of the files that decide pictures."""
    demo = EMBEDDED["demo"]
    components = ("scheduler", "text_encoder", "tokenizer", "unet", "vae")
    files = [demo / "model_index.json", *(file for name in components for file in (demo / name).iterdir())]
    lines = sorted(f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.relative_to(demo).as_posix()}\n" for f in files)
    assert identify("demo")[0].sha256 == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_nothing_is_written_into_a_model_folder(own_hashes: Path, tiny: Tiny) -> None:
    before = {path: path.stat().st_mtime_ns for path in sorted(tiny("sdxl").rglob("*"))}
    identify(str(tiny("sdxl")), vae=str(tiny("sdxl") / "vae"))
    assert {path: path.stat().st_mtime_ns for path in sorted(tiny("sdxl").rglob("*"))} == before


def test_vae_in_one_file_is_identified_by_its_bytes(own_hashes: Path, tiny: Tiny) -> None:
    vae = tiny("sd15") / "vae/diffusion_pytorch_model.safetensors"
    settings, _ = identify(str(tiny("sd15")), vae=str(vae))
    assert settings.vae_sha256 == file_hash(vae)
    assert settings.vae_source == str(vae)


def test_vae_of_another_family_is_refused(own_hashes: Path, tiny: Tiny, tmp_path: Path) -> None:
    sd15 = str(tiny("sd15"))
    for vae, words in (
        (tiny("flux") / "vae", "latents of 16 channels, and Stable Diffusion 1.x has 4"),
        (tiny("flux") / "vae/diffusion_pytorch_model.safetensors", "latents of 16 channels"),
        (tiny("sd15") / "unet", "is no VAE, but Stable Diffusion 1.x"),
        (tiny("sd15") / "tokenizer", "has no config.json"),
        (tiny("sd15"), f"is a whole model; name the component meant, such as {tiny('sd15').name}/vae"),
    ):
        with pytest.raises(ModelError, match=words):
            identify(sd15, vae=str(vae))
    with pytest.raises(ModelError, match=r"is an AutoencoderKLQwenImage, and FLUX\.1 dev decodes with AutoencoderKL"):
        identify(str(tiny("flux")), vae=str(tiny("qwen_image") / "vae"))
    scaled = Path(shutil.copytree(tiny("sd15") / "vae", tmp_path / "xl-vae"))
    config = json.loads((scaled / "config.json").read_text())
    (scaled / "config.json").write_text(json.dumps(config | {"scaling_factor": 0.13025}))
    with pytest.raises(ModelError, match=r"scales latents by 0\.13025, and Stable Diffusion 1.x by 0\.18215"):
        identify(sd15, vae=str(scaled))
    tiny_vae = write_header(tmp_path / "taesd.safetensors", diffusers_shapes("AutoencoderTiny"))
    assert identify(sd15, vae=str(tiny_vae))[0].vae == "taesd"


def test_settings_that_a_model_cannot_follow_are_refused(own_hashes: Path, tiny: Tiny) -> None:
    with pytest.raises(ModelError, match=r"has no prediction type; leave model\.prediction_type out"):
        identify(str(tiny("flux")), prediction_type="v_prediction")
    with pytest.raises(ModelError, match=r"leave model\.config out"):
        identify(str(tiny("flux")), config=str(tiny("flux")))
    with pytest.raises(ModelError, match="has no safety checker"):
        identify(str(tiny("sd15")), safety_checker=True)
    settings, files = identify(str(tiny("sd15")), prediction_type="v_prediction", max_sequence_length=77)
    assert settings.prediction_type == files.prediction_type == "v_prediction"
    assert settings.max_sequence_length == 77


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("hf:org/name", "'hf:org/name': not on this machine; fetch it with: darkroom models download "),
        ("civitai:123", "'civitai:123': not on this machine; fetch it with: darkroom models download "),
        ("https://example.com/model.safetensors", "web addresses are not taken"),
    ],
)
def test_what_is_not_on_this_machine_ends_in_one_line(reference: str, words: str) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        identify(reference)
    assert "\n" not in str(caught.value)


def test_inodes_that_pooled_disks_make_up_are_remembered_too(
    own_hashes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mergerfs hashes to 64 bits, of which SQLite's integers hold 63."""
    path = safetensors(tmp_path / "one.safetensors", b"weights", "mine")
    real = path.stat()
    monkeypatch.setattr(Path, "stat", lambda self, **_: os.stat_result((real.st_mode, 2**64 - 5, *real[2:])))
    assert file_hash(path) == file_hash(path) == hashlib.sha256(path.read_bytes()).hexdigest()
