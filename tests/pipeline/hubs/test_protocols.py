"""Answers of both hubs: what is strange in them costs its field alone, and what is kept of them says the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hub_civitai import File, Model, Version, described_model, described_version
from hub_huggingface import Repository, described

from pipeline.hubs.answer_fields import HubAnswer
from pipeline.hubs.civitai_protocol import CivitaiModel, ModelVersion
from pipeline.hubs.huggingface_protocol import RepositoryInfo

INK = Version(
    102, [File(1002, b"x" * 1000, "Ink.SafeTensors")], base_model="SDXL 1.0", words=("ink",), description="<p>Ink</p>",
    images=({"meta": {"steps": 20, "cfgScale": 7, "sampler": "Euler a", "Clip skip": 2}},),
    early_access_until="2099-01-01T00:00:00Z",
)  # fmt: skip
OF_INK = Model(12, "Ink", [INK], "LORA", tags=("style",), downloads=7, permissions={"allowNoCredit": False})
REPOSITORY = Repository(
    "org/ink", {"ink.safetensors": b"x", "README.md": b"y"}, tags=("lora", "license:mit"), gated="auto", downloads=7,
    card={"license": "mit", "base_model": "org/sdxl", "instance_prompt": "ink"},
)  # fmt: skip
ANSWERS: list[tuple[type[HubAnswer], dict[str, Any]]] = [
    (ModelVersion, described_version(OF_INK, INK)),
    (CivitaiModel, described_model(OF_INK)),
    (RepositoryInfo, described(REPOSITORY, REPOSITORY.commit, blobs=True)),
]
NONSENSE: list[Any] = [
    None, True, -7, 1.5, float("nan"), 10**400, "text", "\ud800", [None, 3, {}], {"a": {"b": []}}, [[["x"]]],
]  # fmt: skip


@pytest.mark.parametrize(("form", "good"), ANSWERS)
def test_a_strange_value_costs_its_field_alone(form: type[HubAnswer], good: dict[str, Any]) -> None:
    whole = form.model_validate(good).model_dump()
    for field in good:
        for nonsense in NONSENSE:
            read = form.model_validate({**good, field: nonsense}).model_dump()
            changed = {name for name in whole if repr(read[name]) != repr(whole[name])}
            # One field of CivitAI's tells two things: that early access is on, and until when.
            assert len(changed - {"early_access"}) <= 1, (field, nonsense)


@pytest.mark.parametrize(("form", "good"), ANSWERS)
def test_what_is_kept_of_an_answer_says_the_same(form: type[HubAnswer], good: dict[str, Any]) -> None:
    answer = form.model_validate(good)
    assert form.model_validate(json.loads(json.dumps(answer.model_dump(mode="json")))) == answer


def test_the_longest_lists_and_texts_are_cut() -> None:
    long = {"name": "x" * 10_000, "trainedWords": [f"word {n}" for n in range(1_000)], "description": "y" * 10**6}
    version = ModelVersion.model_validate({"id": 1, "files": [{}] * 1_000, "images": [{}] * 1_000, **long})
    assert (len(version.name), len(version.words), len(version.text)) == (200, 100, 20_000)
    assert (len(version.files), len(version.pictures)) == (50, 20)
    assert len(RepositoryInfo.model_validate({"siblings": [{}] * 10_000}).files) == 5_000


def test_what_an_earlier_version_has_kept_is_read() -> None:
    """Cards are kept as long as their file lives, and have been kept under other names and with these values."""
    version = ModelVersion.model_validate(
        {
            "id": 102, "model_id": 12, "name": "v1.0", "base_model": "SDXL 1.0", "usage": "Download", "words": ["ink"],
            "early_access": True, "early_access_until": "2099-01-01", "text": "Ink", "model": {"name": "Ink"},
            "files": [{"id": 7, "sizeKB": 1.5, "primary": True, "name": "a.safetensors", "type": "Model",
                       "pickleScanResult": "Success", "virusScanResult": "Success", "hashes": {"SHA256": "AB" * 32},
                       "metadata": {"format": "SafeTensor", "size": "pruned", "fp": "fp16"}}],
            "pictures": [{"steps": 20, "cfgScale": 7, "sampler": "Euler a", "clipSkip": 2}],
        }
    )  # fmt: skip
    (file,), (picture,) = version.files, version.pictures
    assert (version.model_id, version.usage, version.early_access, version.text) == (12, "Download", True, "Ink")
    assert (file.bytes, file.sha256, file.format, file.precision) == (1536, "ab" * 32, "SafeTensor", "fp16")
    assert (picture.steps, picture.guidance_scale, picture.clip_skip, picture.sampler) == (20, 7, 2, "Euler a")
    model = CivitaiModel.model_validate(
        {"id": 12, "permissions": "no merges", "text": "Ink", "versions": [{"id": 102}]}
    )
    assert (model.permissions, model.text, len(model.versions)) == ("no merges", "Ink", 1)
    repository = RepositoryInfo.model_validate(
        {"id": "org/ink", "sha": "a" * 40, "card": {"license": "mit", "base_model": ["org/sdxl"]},
         "siblings": [{"rfilename": "README.md", "size": 1, "blobId": "b" * 40}]}
    )  # fmt: skip
    assert (repository.licence, repository.base_model) == ("mit", "org/sdxl")
    assert (repository.files[0].name, repository.files[0].git_blob) == ("README.md", "b" * 40)
