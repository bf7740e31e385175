"""What is known is listed, searched, found by reference or name, and counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
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
from pipeline.registry.database import Registry
from pipeline.registry.queries import (
    downloaded_bytes,
    files_by_hash,
    files_by_tensors,
    find,
    list_models,
    search_local,
    stats,
)
from pipeline.registry.records import StoredFile, StoredModel
from pipeline.registry.scanning import scan
from pipeline.registry.storing import add, files_of
from pipeline.registry.upkeep import hashed

COMMIT, OLDER = "a1" * 20, "b2" * 20


def known(registry: Registry, name: str, **values: object) -> StoredModel:
    """A model that is only noted; there is no such file."""
    reference = str(values.pop("reference", f"/models/{name}.safetensors"))
    said = {"source": "local", "kind": "lora", "bytes": 1, **values}
    return add(registry, StoredModel(name=name, reference=reference, path=Path(reference), **said), [])  # type: ignore[arg-type]


def names(models: list[StoredModel]) -> list[str]:
    return [model.name for model in models]


@pytest.fixture
def several(registry: Registry) -> Registry:
    known(registry, "Beta", kind="checkpoint", family="sdxl", bytes=30, added_at="2025-01-02T00:00:00.000000Z")
    known(registry, "alpha", family="sdxl", bytes=10, added_at="2025-01-03T00:00:00.000000Z")
    known(registry, "Gamma", bytes=20, last_used="2025-02-01T00:00:00Z", added_at="2025-01-01T00:00:00.000000Z")
    return registry


def test_list_is_narrowed_and_sorted(several: Registry) -> None:
    assert names(list_models(several)) == ["alpha", "Beta", "Gamma"]
    assert names(list_models(several, sort="bytes")) == ["Beta", "Gamma", "alpha"]
    assert names(list_models(several, sort="added_at")) == ["alpha", "Beta", "Gamma"]
    assert names(list_models(several, sort="last_used"))[0] == "Gamma"
    assert names(list_models(several, sort="family")) == ["alpha", "Beta", "Gamma"]
    assert names(list_models(several, kind="lora", family="sdxl")) == ["alpha"]
    assert names(list_models(several, limit=2)) == ["alpha", "Beta"]
    assert list_models(several, source="civitai") == list_models(several, downloaded=True) == []
    assert len(list_models(several, downloaded=False)) == 3


def test_search_wants_every_word_somewhere_and_takes_nothing_for_a_pattern(registry: Registry) -> None:
    known(registry, "Ghibli Style", tags=("anime", "100%"), trigger_words=("GHIBLI_style",), base_model="SDXL 1.0")
    known(registry, "painter", tags=("style",))
    assert names(search_local(registry, "ANIME ghib")) == ["Ghibli Style"]
    assert names(search_local(registry, "sdxl")) == ["Ghibli Style"]
    assert names(search_local(registry, "style")) == ["Ghibli Style", "painter"]  # in the name before in a tag
    assert names(search_local(registry, "100%")) == names(search_local(registry, "i_s")) == ["Ghibli Style"]
    assert search_local(registry, "anime painter") == search_local(registry, "'; DROP TABLE models; --") == []
    assert search_local(registry, "models") == []  # the folder that they lie in is no word of theirs
    assert names(search_local(registry, "")) == ["Ghibli Style", "painter"]
    assert len(list_models(registry, text="", limit=1)) == 1


def test_names_are_found_exactly_then_by_a_beginning_that_only_one_has(registry: Registry) -> None:
    known(registry, "Juggernaut_XL_v9")
    known(registry, "Juggernaut XL v9 Lightning")
    known(registry, "Détail Tweaker")
    for name in ("Juggernaut_XL_v9", "juggernaut xl v9", "JUGGERNAUT-XL-V9.safetensors"):
        assert names(find(registry, name)) == ["Juggernaut_XL_v9"]
    assert names(find(registry, "détail")) == ["Détail Tweaker"]
    assert names(find(registry, "juggernaut")) == ["Juggernaut_XL_v9", "Juggernaut XL v9 Lightning"]  # ambiguous
    assert find(registry, "tweaker") == find(registry, "nothing") == []


def test_name_that_several_have_is_ambiguous(registry: Registry) -> None:
    known(registry, "style", reference="/a/style.safetensors")
    known(registry, "Style", reference="/b/Style.safetensors")
    known(registry, "style two")
    assert [model.reference for model in find(registry, "style")] == ["/a/style.safetensors", "/b/Style.safetensors"]
    assert names(find(registry, "/b/Style.safetensors")) == ["Style"]


def test_repository_is_found_by_branch_commit_and_without(registry: Registry) -> None:
    for commit, branches in ((COMMIT, ("main",)), (OLDER, ("fp16",))):
        values = {"source": "huggingface", "revision": commit, "branches": branches, "kind": "checkpoint"}
        known(registry, "name", reference=f"hf:org/name@{commit}", **values)
        known(registry, "one", reference=f"hf:org/name@{commit}/vae/one.safetensors", **(values | {"kind": "vae"}))
    known(registry, "other", reference=f"hf:org/name2@{OLDER}", revision=OLDER, source="huggingface")

    def found(reference: str) -> list[str]:
        return [model.reference for model in find(registry, reference)]

    assert found("hf:org/name") == found("org/name") == found("hf:org/name@main") == [f"hf:org/name@{COMMIT}"]
    for revision in ("fp16", OLDER, OLDER[:7]):
        assert found(f"hf:org/name@{revision}") == [f"hf:org/name@{OLDER}"]
    assert found("hf:org/name/vae/one.safetensors") == [f"hf:org/name@{COMMIT}/vae/one.safetensors"]
    assert found(f"hf:org/name@{OLDER}/vae/one.safetensors") == [f"hf:org/name@{OLDER}/vae/one.safetensors"]
    for reference in ("hf:org/name@b2b2", "hf:org/name@dev", "hf:org/nam", "hf:other/name", "hf:org/name/two"):
        assert found(reference) == []


def test_branch_points_to_one_commit(registry: Registry) -> None:
    values = {"source": "huggingface", "kind": "checkpoint"}
    for commit in (OLDER, COMMIT):  # fetched one after the other, each time as main
        known(registry, "n", reference=f"hf:org/n@{commit}", revision=commit, branches=("main", "v1"), **values)
    assert {model.revision: model.branches for model in list_models(registry)} == {OLDER: (), COMMIT: ("main", "v1")}


def test_only_file_of_a_repository_is_meant_by_the_repository(registry: Registry) -> None:
    values = {"source": "huggingface", "revision": COMMIT}
    known(registry, "style", reference=f"hf:org/style@{COMMIT}/a.safetensors", **values)
    assert names(find(registry, "hf:org/style")) == ["style"]
    known(registry, "style b", reference=f"hf:org/style@{COMMIT}/b.safetensors", **values)
    assert find(registry, "hf:org/style") == []


def test_civitai_number_is_a_versions_before_a_models(registry: Registry, tmp_path: Path) -> None:
    path = write_lora(tmp_path / "loras" / "scanned.safetensors")
    write_sidecar(path, ".civitai.info", {"id": 20, "modelId": 9})
    scan(registry, path.parent)
    assert names(find(registry, "civitai:20")) == ["scanned"]
    fetched(registry, write_lora(tmp_path / "fetched.safetensors", rank=2), 20, model_id=9)
    fetched(registry, write_lora(tmp_path / "newer.safetensors", rank=3), 30, model_id=9)
    fetched(registry, write_lora(tmp_path / "nine.safetensors", rank=5), 9, model_id=2)
    assert names(find(registry, "civitai:20")) == ["fetched"]  # what was fetched as that is more than a claim
    assert names(find(registry, "civitai:9")) == ["nine"]
    assert names(find(registry, "civitai:2")) == ["nine"]
    assert find(registry, "civitai:77") == []


def test_fetched_copy_is_taken_before_a_cached_one(registry: Registry, tmp_path: Path) -> None:
    demo = write_demo(tmp_path / "demo")
    write_hub_cache(tmp_path / "hub", "org/postcards", COMMIT, below(demo))
    fetched_folder(registry, demo, "org/postcards", COMMIT)
    scan(registry, tmp_path / "hub")
    assert len(list_models(registry)) == 2
    (model,) = find(registry, "hf:org/postcards")
    assert all(file.owned for file in files_of(registry, model))


def test_files_are_found_by_content(registry: Registry, tmp_path: Path) -> None:
    one = write_lora(tmp_path / "a" / "one.safetensors", metadata={"title": "mine"})
    write_lora(tmp_path / "a" / "same weights.safetensors", metadata={"title": "somebody's"})
    scan(registry, one.parent)
    first, second = (hashed(registry, model)[0] for model in list_models(registry))
    assert first.sha256 and second.sha256 and first.sha256 != second.sha256
    assert [file.path for file in files_by_hash(registry, first.sha256)] == [one]
    assert [file.path for file in files_by_hash(registry, first.sha256[:10])] == [one]
    assert len(files_by_tensors(registry, first.tensor_hash or "")) == 2
    assert names(find(registry, f"sha256:{first.sha256}")) == ["one"]
    assert find(registry, f"sha256:{'0' * 64}") == []


def test_malformed_reference_is_an_error_and_not_nothing(registry: Registry) -> None:
    with pytest.raises(ModelError, match="expected civitai:<id>"):
        find(registry, "civitai:name")


def test_model_added_once_more_keeps_its_times_and_hashes(registry: Registry, tmp_path: Path) -> None:
    path = write_lora(tmp_path / "style.safetensors")
    model = StoredModel("style", "local", str(path), "lora", path, 1, last_used="2025-01-01T00:00:00Z")
    before = add(registry, model, [StoredFile.at(path, "style", sha256="1" * 64)])
    again = add(registry, replace(model, name="renamed", last_used=None), [StoredFile.at(path, "style")])
    assert (again.id, again.added_at, again.last_used) == (before.id, before.added_at, before.last_used)
    assert again.name == "renamed" and files_of(registry, again)[0].sha256 == "1" * 64


def test_stats_count_by_source_kind_and_family_and_shared_content_once(registry: Registry, tmp_path: Path) -> None:
    lora = write_lora(tmp_path / "style.safetensors")
    size = lora.stat().st_size
    fetched(registry, lora, 1)
    fetched(registry, lora, 2)  # another version with the very same file
    write_embedding(tmp_path / "mine" / "negative.safetensors")
    scan(registry, tmp_path / "mine")
    said = stats(registry)
    assert (said.models, said.downloaded, said.downloaded_bytes) == (3, 2, size)
    assert said.by_source == {"civitai": 2, "local": 1} and said.by_kind == {"lora": 2, "embedding": 1}
    assert said.by_family == {"sdxl": 2, "sd15": 1}
    assert said.bytes == 2 * size + (tmp_path / "mine" / "negative.safetensors").stat().st_size
    assert downloaded_bytes(registry) == into_store(lora).bytes


def test_stats_of_nothing_are_zeros(registry: Registry) -> None:
    said = stats(registry)
    assert (said.models, said.bytes, said.by_kind, said.downloaded_bytes) == (0, 0, {}, 0)


@pytest.mark.slow
def test_ten_thousand_models_are_listed_and_found(registry: Registry) -> None:
    with registry.changing():
        for number in range(10_000):
            known(registry, f"model {number:05}", tags=("anime", "style"), trigger_words=("one", "two"), family="sdxl")
    assert len(list_models(registry)) == stats(registry).models == 10_000
    assert len(search_local(registry, "09999 anime")) == len(find(registry, "MODEL 09999")) == 1
