"""Which file of a CivitAI version is fetched, and what its words mean."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.hubs.civitai_protocol import ModelVersion, VersionFile, permissions
from pipeline.hubs.version_files import chosen_file
from pipeline.weights.families import FAMILIES, family_of_base


def file(id: int = 1, **changes: Any) -> dict[str, Any]:
    metadata = {"format": "SafeTensor", "size": "pruned", "fp": "fp16"} | changes.pop("metadata", {})
    return {
        "id": id, "name": f"model{id}.safetensors", "type": "Model", "sizeKB": 2048.0, "primary": True,
        "pickleScanResult": "Success", "virusScanResult": "Success", "hashes": {"SHA256": f"{id:064X}"},
        "metadata": metadata, **changes,
    }  # fmt: skip


def version(files: Any) -> ModelVersion:
    return ModelVersion.model_validate({"id": 10, "files": files})


def chosen_id(*files: dict[str, Any]) -> int:
    found = chosen_file(version(list(files)))
    assert not isinstance(found, str), found
    return found.id


def refusal(*files: dict[str, Any]) -> str:
    found = chosen_file(version(list(files)))
    assert isinstance(found, str)
    return found


def test_half_precision_comes_first_then_pruned_then_the_authors_main_one() -> None:
    full = file(1, metadata={"size": "full", "fp": "fp32"})
    packed = file(2, metadata={"fp": "nf4"}, sizeKB=100.0)
    half = file(3, primary=False)
    assert chosen_id(full, packed, half) == 3
    assert chosen_id(full, packed) == 1
    assert chosen_id(file(4, metadata={"size": "full"}), file(5, primary=False)) == 5
    assert chosen_id(file(6, primary=False), file(7)) == 7


def test_files_of_other_kinds_and_of_other_versions_are_passed_over() -> None:
    training = file(1, type="Training Data", name="data.zip", metadata={"format": "Other"})
    vae = file(2, type="VAE", sizeKB=1.0)
    foreign = file(3, modelVersionId=99, sizeKB=1.0)
    assert chosen_id(training, vae, foreign, file(4, modelVersionId=10, metadata={"fp": "fp32"})) == 4
    assert chosen_id(vae) == 2  # a version that is a VAE


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metadata": {"format": "PickleTensor"}}, "only as a pickle"),
        ({"metadata": {"format": "Diffusers"}}, "only as Diffusers"),
        ({"metadata": {"format": None}, "name": "model.bin"}, "calls its safetensors file 'model.bin'"),
        ({"name": "model.ckpt"}, "calls its safetensors file 'model.ckpt'"),
        ({"name": None}, "calls its safetensors file"),
        ({"pickleScanResult": "Pending"}, "'Pending'"),
        ({"virusScanResult": "Danger"}, "'Danger'"),
        ({"virusScanResult": None}, "'missing'"),
        ({"hashes": {}}, "no SHA-256"),
        ({"hashes": {"SHA256": "abc"}}, "no SHA-256"),
        ({"id": "7"}, "without an id"),
    ],
)
def test_what_is_not_safe_is_refused_with_the_reason(changes: dict[str, Any], said: str) -> None:
    assert said in refusal(file() | changes | {"metadata": file()["metadata"] | changes.get("metadata", {})})


def test_a_version_without_files_and_with_nonsense_for_files() -> None:
    assert refusal() == "has no file of weights"
    for nonsense in (None, 7, "files", [None, 3, []], {"a": 1}):
        assert chosen_file(version(nonsense)) == "has no file of weights"


def test_of_a_hash_only_the_file_with_it_counts() -> None:
    files = [file(1), file(2, metadata={"fp": "fp32"})]
    found = chosen_file(version(files), sha256=f"{2:064x}")
    assert not isinstance(found, str) and found.id == 2


def test_hashes_are_read_in_small_letters_and_sizes_as_bytes() -> None:
    read = VersionFile.model_validate
    assert read(file(hashes={"SHA256": "AB" * 32})).sha256 == "ab" * 32
    assert read(file(sizeKB=6775430.4)).bytes == 6938040730
    assert [read({"sizeKB": size}).bytes for size in (None, -1, "1", True, float("nan"), 1e300)] == [None] * 6


def test_base_models_are_mapped_and_unknown_ones_are_not_guessed() -> None:
    assert family_of_base("Illustrious") == "sdxl"
    assert family_of_base("Pony") == "sdxl"
    assert family_of_base("Flux.1 D") == "flux"
    # Pony V7 is AuraFlow, Kontext edits pictures: the beginning of the name says nothing.
    assert [family_of_base(base) for base in ("Pony V7", "Flux.1 Kontext", "Wan Video", "", "SD 2.1")] == [None] * 5


def test_every_mapped_family_is_one_that_is_known() -> None:
    from pipeline.weights.families import _BASE_MODELS

    assert {*_BASE_MODELS} <= {*FAMILIES}


def test_permissions_in_words() -> None:
    strict = {"allowNoCredit": False, "allowDerivatives": False, "allowDifferentLicense": False,
              "allowCommercialUse": []}  # fmt: skip
    assert permissions(strict) == ("credit to the author; no merges; same permissions for merges; no commercial use")
    assert (
        permissions({"allowNoCredit": True, "allowCommercialUse": ["Image", "Sell"]}) == "commercial use: Image, Sell"
    )
    assert permissions({"allowCommercialUse": "None"}) == "no commercial use"
    assert permissions({}) == ""
    assert permissions({"allowCommercialUse": 7}) == ""
