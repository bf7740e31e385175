"""One copy per hash, folders of links to it, and no name of a stranger's that becomes a path unchecked."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from processes import output, python
from small_weights import below, into_store, write_demo, write_lora

from pipeline.errors import ModelError
from pipeline.registry.content import blob_path, is_owned, snapshot
from pipeline.registry.store_folders import store_folder
from pipeline.storage.foreign_names import fault_of_name, plain
from pipeline.weights.inspection import inspect_model


def demo_in_store(tmp_path: Path) -> dict[str, str]:
    files = below(write_demo(tmp_path / "demo"))
    return {name: into_store(path, name).sha256 or "" for name, path in files.items()}


def test_blob_lies_where_its_hash_says(home: Path) -> None:
    assert blob_path("AB" * 32) == home / "models" / "blobs" / "ab" / f"{'ab' * 32}.safetensors"
    assert blob_path("ab" * 32, ".json").suffix == ".json"
    assert is_owned(blob_path("ab" * 32)) and not is_owned(home / "registry.sqlite")


@pytest.mark.parametrize("sha256", ["", "ab", "g" * 64, "../" * 22, "ab" * 33, "ab" * 31 + "a\n"])
def test_what_is_no_hash_has_no_place(sha256: str) -> None:
    with pytest.raises(ModelError, match="is no SHA-256"):
        blob_path(sha256)


@pytest.mark.parametrize("suffix", ["", ".py", ".bin", ".ckpt", "/../x.safetensors", ".SAFETENSORS"])
def test_the_store_takes_no_pickles_and_no_code(suffix: str) -> None:
    with pytest.raises(ModelError, match="the store takes"):
        blob_path("ab" * 32, suffix)


def test_snapshot_is_a_diffusers_folder_of_links(tmp_path: Path) -> None:
    files = demo_in_store(tmp_path)
    folder = snapshot(files)
    assert inspect_model(folder).pipeline_class == inspect_model(tmp_path / "demo").pipeline_class
    for name, sha256 in files.items():
        assert (folder / name).samefile(blob_path(sha256, Path(name).suffix))
    before = sorted(store_folder().rglob("*"))
    assert snapshot(dict(reversed(files.items()))) == folder  # the same content, the same folder
    assert sorted(store_folder().rglob("*")) == before


@pytest.mark.parametrize("links", ["symbolic", "none"])
def test_file_systems_without_hard_links_get_others_or_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: str
) -> None:
    files = demo_in_store(tmp_path)

    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    if links == "none":
        monkeypatch.setattr("os.symlink", refuse)
    folder = snapshot(files)
    assert {hashlib.sha256(path.read_bytes()).hexdigest() for path in below(folder).values()} == set(files.values())
    assert any(path.is_symlink() for path in folder.rglob("*")) == (links == "symbolic")
    assert inspect_model(folder).files


def test_snapshot_that_lacks_a_blob_is_not_made(tmp_path: Path) -> None:
    files = demo_in_store(tmp_path) | {"unet/more.json": "0" * 64}
    with pytest.raises(ModelError, match=r"unet/more\.json: its content is not in the store"):
        snapshot(files)
    assert not any((store_folder() / "snapshots").iterdir())


def test_two_processes_make_one_snapshot(tmp_path: Path) -> None:
    files = demo_in_store(tmp_path)
    code = f"from pipeline.registry.content import snapshot\nprint(snapshot({files!r}))"
    both = [python(code) for _ in range(2)]
    assert len({output(process) for process in both}) == 1
    (folder,) = (store_folder() / "snapshots").iterdir()
    assert set(below(folder)) == set(files)


HOSTILE = {
    "above": "../config.json",
    "above, inside": "unet/../../config.json",
    "absolute": "/etc/passwd.json",
    "empty part": "unet//config.json",
    "this folder": "./config.json",
    "null": "unet/con\0fig.json",
    "line": "unet/con\nfig.json",
    "escape": "unet/\x1b[2Jconfig.json",
    "right to left": "unet/\u202egnp.json",
    "half a character": "unet/\udcff.json",
    "backslash": "..\\config.json",
    "drive": "C:config.json",
    "stream": "config.json:hidden.json",
    "device": "nul.json",
    "device with endings": "unet/COM1.tar.json",
    "300 characters": f"{'a' * 295}.json",
    "space at the end": "unet/config.json ",
    "dot at the end": "unet./config.json",
    "nothing": "",
    "too deep": "a/" * 600 + "config.json",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_names_never_become_paths(case: str, tmp_path: Path) -> None:
    sha256 = into_store(write_lora(tmp_path / "lora.safetensors")).sha256 or ""
    before = sorted(tmp_path.rglob("*"))
    assert fault_of_name(HOSTILE[case])
    with pytest.raises(ModelError, match="the file is refused") as caught:
        snapshot({"fine.safetensors": sha256, HOSTILE[case]: sha256})
    assert str(caught.value).isprintable()
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("one", "other"),
    [("unet/config.json", "UNET/Config.json"), ("caf\u00e9.json", "cafe\u0301.json"), ("a.json", "a.json/b.json")],
)
def test_names_that_are_one_file_on_some_systems_are_refused(one: str, other: str) -> None:
    with pytest.raises(ModelError, match="refused"):
        snapshot({one: "0" * 64, other: "1" * 64})


@pytest.mark.parametrize(
    "name", ["model_index.json", "text_encoder/model-00001-of-00002.safetensors", "vae/größe.json", "a b/c (1).json"]
)
def test_honest_names_are_taken(name: str) -> None:
    assert fault_of_name(name) is None


@given(st.text(max_size=60))
def test_name_without_fault_stays_in_its_folder(name: str) -> None:
    if fault_of_name(name) is None:
        path = os.path.normpath(f"/store/snapshot/{name}")
        assert path.startswith("/store/snapshot/") and path.isprintable()


@given(st.text(max_size=300))
def test_texts_of_strangers_become_one_printable_line(text: str) -> None:
    assert plain(text).isprintable() and len(plain(text)) <= 200
