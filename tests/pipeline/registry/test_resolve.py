"""A reference becomes a verified place on this machine, offline, or one line that says how to get there."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import output, python, without_privileges
from small_weights import (
    below,
    fetched,
    fetched_folder,
    into_store,
    write_demo,
    write_embedding,
    write_hub_cache,
    write_lora,
    write_sidecar,
)

from pipeline.errors import ModelError
from pipeline.registry.database import Registry, RegistryError
from pipeline.registry.model_settings import identify
from pipeline.registry.queries import find, list_models
from pipeline.registry.resolve import is_remote, resolve
from pipeline.registry.scanning import scan
from pipeline.registry.store_folders import registry_file
from pipeline.registry.upkeep import hashed
from pipeline.weights.file_inspection import inspect_file
from pipeline.weights.references import EMBEDDED

COMMIT = "a1" * 20


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with nothing in it."""
    (tmp_path / "working").mkdir()
    monkeypatch.chdir(tmp_path / "working")
    yield tmp_path / "working"


def refused(reference: str, noun: str = "model") -> str:
    with pytest.raises(ModelError) as caught:
        resolve(reference, noun)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("reference", "typed"),
    [
        ("hf:org/name", "hf:org/name"),
        ("hf:org/name@v2/vae", "hf:org/name@v2/vae"),
        ("civitai:123", "civitai:123"),
        ("hf:org/name/my%20file(1).safetensors", "'hf:org/name/my%20file(1).safetensors'"),
    ],
)
def test_what_is_not_here_ends_in_a_line_that_says_what_to_do(reference: str, typed: str) -> None:
    line = refused(reference, "lora")
    assert line == (
        f"lora {reference!r}: not on this machine; fetch it with: darkroom models download {typed} "
        "(with hub.auto_download=true a run does so itself)"
    )
    assert is_remote(reference) and not registry_file().exists()  # asking makes nothing


def test_hash_and_name_that_nobody_knows_say_what_to_do() -> None:
    assert "known to have this hash; scan its folder with: darkroom models scan FOLDER" in refused("sha256:" + "0" * 64)
    assert refused("sha256:" + "0" * 64, "lora").endswith(f"with: darkroom models download sha256:{'0' * 64}")
    assert "darkroom models download" not in refused("sha256:" + "0" * 12, "lora")  # a hub finds by whole hashes only
    assert refused("ink wash", "lora").endswith(
        "; download the model of this name with: darkroom models download 'ink wash'"
    )
    line = refused("stabilityai/sdxl-turbo")
    assert "no such folder or file" in line and line.endswith("write hf:stabilityai/sdxl-turbo")
    assert "no such file" in refused("style", "lora") and "`darkroom models list`" in refused("style", "lora")
    assert "models list" not in refused("/nowhere/style.safetensors", "lora")


def test_pictures_are_found_by_path_alone(registry: Registry, tmp_path: Path) -> None:
    fetched(registry, write_lora(tmp_path / "style.safetensors"), 1)
    for reference in ("style", "civitai:1", "hf:org/name"):
        assert "no such file" in refused(reference, "image")


def test_path_needs_no_registry(home: Path, tmp_path: Path) -> None:
    path = write_lora(tmp_path / "style.safetensors")
    home.mkdir()
    registry_file().write_bytes(b"damaged" * 1000)
    assert resolve(str(path), "lora") == path
    assert resolve("../style.safetensors", "lora") == path
    assert resolve("demo") == EMBEDDED["demo"]
    with pytest.raises(RegistryError, match="is damaged"):
        resolve("hf:org/name")
    assert "no such folder or file" in refused("style") and "is damaged" in refused("style")


def test_fetched_model_is_found_by_every_name_it_has(registry: Registry, tmp_path: Path) -> None:
    source = write_lora(tmp_path / "Ink Style.safetensors")
    model = fetched(registry, source, 22, model_id=11)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    source.unlink()
    for reference in (
        "civitai:22",
        "civitai:11",
        f"sha256:{digest}",
        f"sha256:{digest[:10].upper()}",
        "Ink Style",
        "ink",
    ):
        assert resolve(reference, "lora") == model.path, reference
        assert not is_remote(reference)
    assert inspect_file(model.path).kind == "lora"
    assert find(registry, "ink")[0].last_used  # noted


def test_fetched_repository_is_a_model_as_a_whole_and_in_parts(registry: Registry, tmp_path: Path) -> None:
    model = fetched_folder(registry, write_demo(tmp_path / "demo"), "org/postcards", COMMIT)
    assert resolve("hf:org/postcards") == resolve(f"hf:org/postcards@{COMMIT}") == resolve("postcards") == model.path
    assert resolve("hf:org/postcards/vae", "vae") == model.path / "vae"
    assert is_remote("hf:org/postcards/nothing") is is_remote("hf:org/postcards@dev") is True
    assert "not on this machine" in refused("hf:org/postcards/nothing")
    settings, files = identify("hf:org/postcards")
    assert settings.name == "postcards" and settings.sha256 == identify("demo")[0].sha256
    assert files.path == model.path


def test_cached_file_is_used_under_its_name(registry: Registry, tmp_path: Path) -> None:
    """Its link leads to a blob without an ending, of which nobody would know that it is safetensors."""
    lora = write_lora(tmp_path / "ink.safetensors")
    folder = write_hub_cache(tmp_path / "hub", "org/ink", COMMIT, {"ink.safetensors": lora})
    assert resolve(str(folder / "ink.safetensors"), "lora") == folder / "ink.safetensors"
    scan(registry, tmp_path / "hub")
    for reference in (
        "hf:org/ink",
        "hf:org/ink/ink.safetensors",
        "ink",
        f"sha256:{hashlib.sha256(lora.read_bytes()).hexdigest()}",
    ):
        assert inspect_file(resolve(reference, "lora")).kind == "lora"


def test_name_that_several_have_lists_them(registry: Registry, tmp_path: Path) -> None:
    one = write_lora(tmp_path / "loras" / "a" / "ink.safetensors")
    two = write_lora(tmp_path / "loras" / "b" / "ink.safetensors", rank=8)
    write_lora(tmp_path / "loras" / "inkwell.safetensors")
    scan(registry, tmp_path / "loras")
    line = refused("ink", "lora")
    assert "names 2 models; say which" in line and str(one) in line and str(two) in line
    assert resolve(str(two), "lora") == two
    assert resolve("inkw", "lora") == tmp_path / "loras" / "inkwell.safetensors"


def test_long_list_of_candidates_is_cut(registry: Registry, tmp_path: Path) -> None:
    for number in range(30):
        write_lora(tmp_path / "loras" / f"ink{number}.safetensors", rank=number + 1)
    scan(registry, tmp_path / "loras")
    line = refused("ink", "lora")
    assert "names 30 models" in line and "and 25 more" in line


def test_copies_of_one_file_are_not_ambiguous(registry: Registry, tmp_path: Path) -> None:
    one = write_lora(tmp_path / "loras" / "a" / "ink.safetensors")
    two = write_lora(tmp_path / "loras" / "b" / "ink.safetensors")
    scan(registry, tmp_path / "loras")
    assert resolve("ink", "lora") in (one, two)
    with two.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x01")  # the same length, another content
    assert "say which" in refused("ink", "lora")


def test_kind_that_is_looked_for_decides_between_equal_names(registry: Registry, tmp_path: Path) -> None:
    lora = write_lora(tmp_path / "models" / "loras" / "ink.safetensors")
    embedding = write_embedding(tmp_path / "models" / "embeddings" / "ink.safetensors")
    scan(registry, tmp_path / "models")
    assert resolve("ink", "lora") == lora and resolve("ink", "embedding") == embedding
    assert "say which" in refused("ink")


def test_what_is_known_and_gone_is_told_from_what_was_never_known(registry: Registry, tmp_path: Path) -> None:
    path = write_lora(tmp_path / "loras" / "ink.safetensors")
    scan(registry, path.parent)
    path.unlink()
    line = refused("ink", "lora")
    assert f"was at {path} and is gone" in line and "darkroom models scan FOLDER" in line


def test_fetched_file_that_has_changed_is_not_given_out(registry: Registry, tmp_path: Path) -> None:
    model = fetched(registry, write_lora(tmp_path / "ink.safetensors"), 22)
    os.utime(model.path)  # only touched: hashed once, and good again
    assert resolve("civitai:22", "lora") == model.path
    with model.path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x01")
    line = refused("civitai:22", "lora")
    assert "has changed since it was downloaded" in line and "darkroom models remove civitai:22" in line
    model.path.unlink()
    assert "is gone; put it back, or scan its new folder with: darkroom models scan FOLDER" in refused(
        "civitai:22", "lora"
    )
    assert is_remote("civitai:22")


def test_hash_that_is_only_claimed_is_checked_before_it_is_believed(registry: Registry, tmp_path: Path) -> None:
    honest = write_lora(tmp_path / "loras" / "honest.safetensors")
    liar = write_lora(tmp_path / "loras" / "liar.safetensors", rank=8)
    digest = hashlib.sha256(honest.read_bytes()).hexdigest()
    write_sidecar(honest, ".json", {"sha256": digest})
    write_sidecar(liar, ".json", {"sha256": "c" * 64})
    scan(registry, honest.parent)
    assert resolve(f"sha256:{digest}", "lora") == honest
    assert "known to have this hash" in refused("sha256:" + "c" * 64, "lora")


def test_hash_is_found_again_wherever_it_was_seen(registry: Registry, tmp_path: Path) -> None:
    stray = into_store(write_lora(tmp_path / "stray.safetensors", rank=2))  # in the store, and not noted
    assert resolve(f"sha256:{stray.sha256}", "lora") == stray.path
    settings, _ = identify("demo")
    assert resolve(f"sha256:{settings.sha256}") == EMBEDDED["demo"]  # a folder, by the hash that records name
    path = write_lora(tmp_path / "loras" / "ink.safetensors", rank=3)
    scan(registry, path.parent)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert "known to have this hash" in refused(f"sha256:{digest}")  # nothing is hashed for the asking
    (model,) = list_models(registry)
    hashed(registry, model)
    assert resolve(f"sha256:{digest}", "lora") == path


def test_resolving_works_on_a_read_only_disk(registry: Registry, home: Path, tmp_path: Path) -> None:
    model = fetched(registry, write_lora(tmp_path / "ink.safetensors"), 22)
    registry.close()
    home.chmod(0o555)
    registry_file().chmod(0o444)
    code = "from pipeline.registry.resolve import resolve\nprint(resolve('civitai:22', 'lora'))"
    try:
        assert output(python(code, preexec_fn=without_privileges)) == str(model.path)
    finally:
        home.chmod(0o755)
        registry_file().chmod(0o644)


def test_below_a_fetched_repository_nothing_else_is_reached(registry: Registry, tmp_path: Path) -> None:
    fetched_folder(registry, write_demo(tmp_path / "demo"), "org/postcards", COMMIT)
    for inside in ("../../../registry.sqlite", "/etc/passwd", "unet/../../x"):
        assert "the file's name leaves its folder" in refused(f"hf:org/postcards/{inside}")
    assert below(tmp_path / "demo")
