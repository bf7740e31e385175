"""What is known is checked against the disk, removed, and kept below a size; what is the user's is never touched."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from small_weights import below, fetched, fetched_folder, into_store, write_demo, write_embedding, write_lora

from pipeline.hubs.partial_file import held_partial
from pipeline.registry.content import blob_path
from pipeline.registry.database import Registry
from pipeline.registry.leftovers import STRAY_S
from pipeline.registry.queries import downloaded_bytes, find, list_models, stats
from pipeline.registry.records import StoredModel
from pipeline.registry.scanning import scan
from pipeline.registry.store_folders import store_folder
from pipeline.registry.storing import files_of
from pipeline.registry.upkeep import Pruned, hashed, least_used, prune, remove, touch, verify

COMMIT, OLDER = "a1" * 20, "b2" * 20


def states(registry: Registry) -> dict[str, str]:
    return {checked.file.name: checked.state for checked in verify(registry)}


def used(registry: Registry, model: StoredModel, when: str | None) -> None:
    with registry.changing() as connection:
        connection.execute("UPDATE models SET last_used = ? WHERE id = ?", (when, model.id))


def test_verify_reads_every_byte_and_names_what_is_not_as_it_was(registry: Registry, tmp_path: Path) -> None:
    kept = fetched(registry, write_lora(tmp_path / "kept.safetensors"), 1)
    rotten = fetched(registry, write_lora(tmp_path / "rotten.safetensors", rank=2), 2)
    gone = fetched(registry, write_lora(tmp_path / "gone.safetensors", rank=3), 3)
    scan(registry, write_lora(tmp_path / "mine" / "mine.safetensors", rank=5).parent)
    for model in list_models(registry):
        hashed(registry, model)
    stat = rotten.path.stat()
    with rotten.path.open("r+b") as file:  # one bit, with size and times as before: only reading tells
        file.seek(-1, os.SEEK_END)
        file.write(b"\x01")
    os.utime(rotten.path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    gone.path.unlink()
    found = {checked.file.name: checked for checked in verify(registry)}
    assert {name: checked.state for name, checked in found.items()} == {
        "kept.safetensors": "ok",
        "rotten.safetensors": "changed",
        "gone.safetensors": "missing",
        "mine.safetensors": "ok",
    }
    assert found["rotten.safetensors"].found_sha256 not in (None, found["rotten.safetensors"].file.sha256)
    assert states(registry)["rotten.safetensors"] == "changed"  # and it stays so
    assert [checked.model for checked in verify(registry, [kept])] == [kept]


def test_verify_gives_what_was_never_hashed_its_hash(registry: Registry, tmp_path: Path) -> None:
    path = write_lora(tmp_path / "mine" / "mine.safetensors")
    scan(registry, path.parent)
    assert states(registry) == {"mine.safetensors": "noted"}
    assert states(registry) == {"mine.safetensors": "ok"}
    write_lora(path, "sd15")
    assert states(registry) == {"mine.safetensors": "changed"}
    scan(registry, path.parent)
    assert states(registry) == {"mine.safetensors": "noted"}


def test_use_is_noted_once_an_hour(registry: Registry, tmp_path: Path) -> None:
    model = fetched(registry, write_lora(tmp_path / "style.safetensors"), 1)
    assert model.last_used is None
    touch(registry, model)
    (first,) = find(registry, "style")
    assert first.last_used and first.last_used > first.added_at
    touch(registry, first)
    assert find(registry, "style") == [first]
    used(registry, first, "2025-01-01T00:00:00Z")
    (old,) = find(registry, "style")
    touch(registry, old)
    assert (find(registry, "style")[0].last_used or "") > "2025-01-02"


def test_removing_what_was_scanned_in_only_forgets_it(registry: Registry, tmp_path: Path) -> None:
    path = write_lora(tmp_path / "mine" / "mine.safetensors")
    scan(registry, path.parent)
    (model,) = list_models(registry)
    assert remove(registry, model) == 0
    assert list_models(registry) == [] and path.is_file()
    assert scan(registry, path.parent).added == 1


def test_removing_what_was_fetched_frees_its_files_and_no_other(registry: Registry, tmp_path: Path) -> None:
    lora = write_lora(tmp_path / "style.safetensors")
    one, two = fetched(registry, lora, 1), fetched(registry, lora, 2)  # one content, two versions
    assert one.path == two.path
    assert remove(registry, one) == 0 and two.path.is_file()
    assert remove(registry, two) == lora.stat().st_size and not two.path.exists()
    assert list_models(registry) == [] and list((store_folder() / "notes").iterdir()) == []


def test_folders_that_share_files_keep_each_others(registry: Registry, tmp_path: Path) -> None:
    demo = write_demo(tmp_path / "demo")
    old = fetched_folder(registry, demo, "org/postcards", OLDER)
    config = demo / "unet" / "config.json"
    config.write_text(config.read_text() + "\n")
    new = fetched_folder(registry, demo, "org/postcards", COMMIT)
    assert old.path != new.path
    assert old.path.joinpath("unet/diffusion_pytorch_model.safetensors").samefile(
        new.path / "unet/diffusion_pytorch_model.safetensors"
    )
    assert remove(registry, old) == config.stat().st_size - 1  # all but the configuration is shared
    assert not old.path.exists()
    assert all(checked.state == "ok" for checked in verify(registry))
    assert set(below(new.path)) == set(below(demo))
    remove(registry, new)
    assert not any((store_folder() / "blobs").glob("??/*")) and not any((store_folder() / "snapshots").iterdir())


def test_model_stays_known_when_its_files_cannot_be_removed(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fetched(registry, write_lora(tmp_path / "style.safetensors"), 1)

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(PermissionError):
        remove(registry, model)
    monkeypatch.undo()
    monkeypatch.setenv("DARKROOM_HOME", str(tmp_path / "home"))
    assert list_models(registry) == [model]
    assert remove(registry, model) > 0


def test_pruning_takes_the_longest_unused_and_never_what_was_scanned_in(registry: Registry, tmp_path: Path) -> None:
    models = [fetched(registry, write_lora(tmp_path / f"l{n}.safetensors", rank=64 + n), n + 1) for n in range(4)]
    write_embedding(tmp_path / "mine" / "big.safetensors", vectors=1000)
    scan(registry, tmp_path / "mine")
    used(registry, models[0], "2025-03-01T00:00:00Z")
    used(registry, models[1], "2025-01-01T00:00:00Z")
    used(registry, models[2], "2025-02-01T00:00:00Z")  # models[3] was never used, and fetched just now
    sizes = [model.bytes for model in models]
    assert [model.name for model in least_used(registry, sizes[0] + sizes[3])] == ["l1", "l2"]
    assert least_used(registry, sum(sizes)) == []
    pruned = prune(registry, sizes[0] + sizes[3])
    assert [model.name for model in pruned.models] == ["l1", "l2"] and pruned.freed_bytes == sizes[1] + sizes[2]
    assert [model.name for model in list_models(registry)] == ["big", "l0", "l3"]
    prune(registry, 0)
    assert [model.name for model in list_models(registry)] == ["big"]
    assert (tmp_path / "mine" / "big.safetensors").is_file()


def test_content_that_others_share_frees_nothing_until_the_last_goes(registry: Registry, tmp_path: Path) -> None:
    lora = write_lora(tmp_path / "style.safetensors")
    one, two = fetched(registry, lora, 1), fetched(registry, lora, 2)
    used(registry, one, "2025-01-01T00:00:00Z")
    assert least_used(registry, lora.stat().st_size) == []
    assert [model.id for model in least_used(registry, 0)] == [one.id, two.id]


def left_over(home: Path, tmp_path: Path) -> dict[str, Path]:
    """A whole file without a model, the beginning of one, and a folder that was not finished."""
    stray = into_store(write_lora(tmp_path / "stray.safetensors")).path
    partial = stray.with_name(f"{'ab' * 32}.safetensors.partial")
    partial.write_bytes(bytes(1000))
    half = store_folder() / "snapshots" / ".abc.tmp"
    half.mkdir(parents=True)
    return {"stray": stray, "partial": partial, "half": half}


def test_what_downloads_left_is_counted_and_goes_when_it_is_old_or_the_rest_does_not_fit(
    registry: Registry, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Young, it may be gone on with, or about to get its model."""
    kept = fetched_folder(registry, write_demo(tmp_path / "demo"), "org/postcards", COMMIT)
    left = left_over(home, tmp_path)
    (store_folder() / "blobs" / "ab").mkdir(exist_ok=True)
    (foreign := store_folder() / "blobs" / "ab" / "README.md").write_text("somebody's own")
    size = left["stray"].stat().st_size + 1000
    assert (stats(registry).left_over, stats(registry).left_over_bytes) == (3, size)
    assert prune(registry, 10**12) == Pruned([], [], 0) and all(path.exists() for path in left.values())
    pruned = prune(
        registry, downloaded_bytes(registry) + size - 1
    )  # one byte too many: the first that is found is enough
    assert pruned.models == [] and pruned.leftovers and pruned.freed_bytes <= size
    now = time.time
    monkeypatch.setattr("pipeline.registry.leftovers.time.time", lambda: now() + 2 * STRAY_S)
    prune(registry, 10**12)
    assert not any(path.exists() for path in left.values()) and foreign.exists()
    assert stats(registry).left_over == 0
    assert all(file.path.is_file() and file.sha256 for file in files_of(registry, kept))
    assert blob_path(files_of(registry, kept)[0].sha256 or "", files_of(registry, kept)[0].path.suffix).is_file()


def test_what_a_process_is_fetching_stays(registry: Registry, home: Path, tmp_path: Path) -> None:
    left = left_over(home, tmp_path)
    with held_partial(left["partial"].with_suffix(""), lambda: None):
        assert [one.path for one in prune(registry, 0).leftovers] == []
    pruned = prune(registry, 0)
    assert {one.path for one in pruned.leftovers} == {*left.values()} and not left["partial"].exists()
