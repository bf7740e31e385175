"""Folders are taken in where they are: headers once, nothing twice, and nothing in them stops a scan."""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

import pytest
from opened_files import files_opened
from small_weights import (
    below,
    fetched,
    fetched_folder,
    write_demo,
    write_embedding,
    write_hub_cache,
    write_lora,
    write_sidecar,
)

from pipeline.registry.database import Registry
from pipeline.registry.queries import find, list_models
from pipeline.registry.scanning import scan
from pipeline.registry.store_folders import registry_file, store_folder
from pipeline.registry.storing import files_of
from pipeline.registry.upkeep import hashed, verify
from pipeline.weights.references import EMBEDDED

COMMIT, OLDER = "a" * 40, "b" * 40


def bytes_read() -> int:
    """What this process has read so far through system calls, from files and all else."""
    return int(Path("/proc/self/io").read_text().split()[1])


def names(registry: Registry) -> list[str]:
    return [model.name for model in list_models(registry)]


def snapshot_of(folder: Path) -> dict[Path, tuple[int, int]]:
    """Everything in a folder, with sizes and times."""
    return {path: (path.lstat().st_size, path.lstat().st_mtime_ns) for path in sorted(folder.rglob("*"))}


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc/self/io")
def test_thousand_files_are_read_once_and_only_their_headers(registry: Registry, tmp_path: Path) -> None:
    folder = tmp_path / "loras"
    for number in range(1_000):
        write_lora(folder / f"style {number % 10}" / f"lora{number}.safetensors", rank=500 + number % 4)
    before = bytes_read()
    with files_opened(folder) as opened:
        report = scan(registry, folder)
    assert (report.found, report.added, report.refused) == (1_000, 1_000, [])
    assert len(set(opened)) == 1_000
    assert bytes_read() - before < 1_000 * 2**15  # of 2.7 GB: headers, twice where they hold remarks, and the registry
    with files_opened(folder) as opened:
        again = scan(registry, folder)
    assert (again.unchanged, again.added, again.changed, again.gone) == (1_000, 0, 0, 0)
    assert opened == []
    assert len(list_models(registry)) == 1_000


def test_hashes_are_computed_when_asked_for_and_once(registry: Registry, tmp_path: Path) -> None:
    path = write_lora(tmp_path / "loras" / "style.safetensors")
    scan(registry, path.parent)
    (model,) = list_models(registry)
    assert [file.sha256 for file in files_of(registry, model)] == [None]
    (file,) = hashed(registry, model)
    content = path.read_bytes()
    assert file.sha256 == hashlib.sha256(content).hexdigest()
    assert file.tensor_hash == hashlib.sha256(content[8 + int.from_bytes(content[:8], "little") :]).hexdigest()
    with files_opened(path.parent) as opened:
        assert hashed(registry, model) == [file]
        scan(registry, path.parent)
        assert files_of(registry, model) == [file]
    assert opened == []


def test_what_has_changed_gone_and_come_is_told_apart(registry: Registry, tmp_path: Path) -> None:
    folder = tmp_path / "loras"
    for name in ("kept", "changed", "gone"):
        write_lora(folder / f"{name}.safetensors")
    scan(registry, folder)
    (model,) = find(registry, "changed")
    hashed(registry, model)
    write_lora(folder / "changed.safetensors", "sd15")
    (folder / "gone.safetensors").unlink()
    write_lora(folder / "come.safetensors")
    report = scan(registry, folder)
    assert (report.found, report.unchanged, report.changed, report.added, report.gone) == (3, 1, 1, 1, 1)
    assert names(registry) == ["changed", "come", "kept"]
    (after,) = find(registry, "changed")
    assert (after.family, after.id, after.added_at) == ("sd15", model.id, model.added_at)
    assert files_of(registry, after)[0].sha256 is None  # the old content's


def test_file_that_became_another_kind_of_model_is_noted_as_that(registry: Registry, tmp_path: Path) -> None:
    path = write_lora(tmp_path / "models" / "one.safetensors")
    scan(registry, path.parent)
    write_embedding(path)
    assert scan(registry, path.parent).changed == 1
    (model,) = list_models(registry)
    assert model.kind == "embedding"
    path.write_bytes(b"\x80\x04 a pickle by now")
    report = scan(registry, path.parent)
    assert report.found == 0 and "is a pickle" in report.refused[0][1]
    assert list_models(registry) == []


def test_scanned_folder_is_not_written_to(registry: Registry, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    write_demo(folder / "demo")
    write_sidecar(write_lora(folder / "loras" / "style.safetensors"), ".civitai.info", {"id": 1})
    before = snapshot_of(folder)
    scan(registry, folder)
    for model in list_models(registry):
        hashed(registry, model)
    list(verify(registry))
    assert snapshot_of(folder) == before


def test_layouts_of_comfyui_and_a1111_are_read_by_content(registry: Registry, tmp_path: Path) -> None:
    """The header decides: a LoRA among checkpoints is a LoRA. Folders that users made are words to search by."""
    webui, comfy = tmp_path / "webui" / "models", tmp_path / "ComfyUI" / "models"
    write_lora(webui / "Lora" / "anime" / "eyes.safetensors", "sd15")
    write_lora(comfy / "checkpoints" / "misplaced.safetensors")
    write_embedding(comfy / "embeddings" / "negative.safetensors")
    write_embedding(webui.parent / "embeddings" / "SHOUTED.SAFETENSORS")
    write_demo(comfy / "diffusers" / "postcards")
    report = scan(registry, tmp_path)
    found = {model.name: (model.kind, model.family, model.source) for model in list_models(registry)}
    assert found == {
        "eyes": ("lora", "sd15", "local"),
        "misplaced": ("lora", "sdxl", "local"),
        "negative": ("embedding", "sd15", "local"),
        "SHOUTED": ("embedding", "sd15", "local"),
        "postcards": ("checkpoint", "sd15", "local"),
    }
    assert report.refused == []
    (eyes,) = find(registry, "eyes")
    assert eyes.tags == ("anime",) and eyes.precision == "float16"
    assert eyes.reference == str(webui / "Lora" / "anime" / "eyes.safetensors") == str(eyes.path)


def test_diffusers_folder_is_one_model_of_the_files_that_decide(registry: Registry, tmp_path: Path) -> None:
    folder = write_demo(tmp_path / "models" / "postcards")
    (folder / "README.md").write_text("no part of it")
    write_lora(folder / "beside.safetensors")
    scan(registry, tmp_path / "models")
    assert names(registry) == ["beside", "postcards"]
    (model,) = find(registry, "postcards")
    files = files_of(registry, model)
    assert {file.name for file in files} == {n for n in below(folder) if n not in ("README.md", "beside.safetensors")}
    assert model.bytes == sum((folder / file.name).stat().st_size for file in files)
    (folder / "unet" / "config.json").write_text((folder / "unet" / "config.json").read_text() + "\n")
    report = scan(registry, tmp_path / "models")
    assert (report.changed, report.unchanged) == (1, 1)


def test_component_with_its_configuration_is_one_model(registry: Registry, tmp_path: Path) -> None:
    folder = tmp_path / "models" / "my vae"
    shutil.copytree(EMBEDDED["demo"] / "vae", folder)
    write_lora(folder / "beside.safetensors")
    scan(registry, tmp_path / "models")
    assert [(m.name, m.kind, m.path) for m in list_models(registry)] == [
        ("beside", "lora", folder / "beside.safetensors"),
        ("my vae", "vae", folder),
    ]


def test_file_whose_name_says_nothing_is_called_like_its_folder(registry: Registry, tmp_path: Path) -> None:
    folder = tmp_path / "models" / "detail tweaker"
    write_lora(folder / "pytorch_lora_weights.safetensors")
    scan(registry, tmp_path / "models")
    assert [(m.name, m.path.name) for m in list_models(registry)] == [
        ("detail tweaker", "pytorch_lora_weights.safetensors")
    ]


def test_hugging_face_cache_is_read_through_its_links(registry: Registry, tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    demo = write_demo(tmp_path / "somewhere")
    current = write_hub_cache(hub, "some-org/post--cards", COMMIT, below(demo))
    lora = write_lora(tmp_path / "pytorch_lora_weights.safetensors")
    write_hub_cache(hub, "some-org/style", OLDER, {"pytorch_lora_weights.safetensors": lora}, branch="fp16")
    write_hub_cache(hub, "some-org/style", COMMIT, {"pytorch_lora_weights.safetensors": lora})
    (hub / "datasets--some-org--pictures").mkdir()
    write_lora(hub / "datasets--some-org--pictures" / "no_model.safetensors")
    report = scan(registry, hub)
    assert report.found == 3, report.refused
    assert {(m.reference, m.source, m.name, m.branches) for m in list_models(registry)} == {
        (f"hf:some-org/post--cards@{COMMIT}", "huggingface", "post--cards", ("main",)),
        (f"hf:some-org/style@{OLDER}/pytorch_lora_weights.safetensors", "huggingface", "style", ("fp16",)),
        (f"hf:some-org/style@{COMMIT}/pytorch_lora_weights.safetensors", "huggingface", "style", ("main",)),
    }
    (model,) = find(registry, "hf:some-org/post--cards")
    assert model.path == current and model.revision == COMMIT
    unet = next(f for f in files_of(registry, model) if f.name == "unet/diffusion_pytorch_model.safetensors")
    assert unet.claimed_sha256 == hashlib.sha256(unet.path.read_bytes()).hexdigest() and unet.sha256 is None
    with files_opened(hub) as opened:
        assert scan(registry, hub).unchanged == 3
    assert opened == []
    (hub / "models--some-org--style" / "refs" / "main").write_text(OLDER)  # as a fetch that went back would
    scan(registry, hub)
    (style,) = find(registry, "hf:some-org/style")
    assert style.revision == OLDER and set(style.branches) == {"fp16", "main"}


def test_linked_folder_on_another_disk_is_entered(registry: Registry, tmp_path: Path) -> None:
    elsewhere = write_lora(tmp_path / "disk2" / "style.safetensors").parent
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "loras").symlink_to(elsewhere)
    scan(registry, tmp_path / "models")
    assert [model.path for model in list_models(registry)] == [tmp_path / "models" / "loras" / "style.safetensors"]


def test_hidden_folders_are_passed_over(registry: Registry, tmp_path: Path) -> None:
    write_lora(tmp_path / "models" / ".trash" / "style.safetensors")
    assert scan(registry, tmp_path / "models").found == 0
    assert scan(registry, tmp_path / "models" / ".trash").found == 1  # but for the one that was named


def test_store_inside_a_scanned_folder_is_left_to_itself(registry: Registry, tmp_path: Path) -> None:
    fetched(registry, write_lora(tmp_path / "fetched.safetensors"), 7)
    assert scan(registry, tmp_path / "home").found == 0
    assert [model.reference for model in list_models(registry)] == ["civitai:7"]


def test_lost_registry_is_made_anew_from_the_store(registry: Registry, tmp_path: Path) -> None:
    """Scanning the store takes in what was fetched, with its references, without asking a hub."""
    lora = fetched(registry, write_lora(tmp_path / "style.safetensors"), 7, trigger_words=("styled",))
    demo = fetched_folder(registry, write_demo(tmp_path / "demo"), "org/postcards", COMMIT)
    lost = fetched(registry, write_lora(tmp_path / "lost.safetensors", rank=3), 8)
    before = {model.reference: files_of(registry, model) for model in (lora, demo)}
    registry.close()
    lost.path.unlink()
    for path in registry_file().parent.glob("registry.sqlite*"):
        path.unlink()
    (store_folder() / "notes" / "odd.json").write_text('{"path": "../../escaped", "files": []}')
    (store_folder() / "notes" / "cut.json").write_text('{"path": "../..')
    with Registry() as anew:
        report = scan(anew, store_folder())
        assert report.found == report.added == 2
        assert len(report.refused) == 3 and any("civitai:8" in why for _, why in report.refused)
        after = {model.reference: files_of(anew, model) for model in list_models(anew)}
        assert {r: [(f.path, f.sha256, f.owned) for f in files] for r, files in after.items()} == {
            r: [(f.path, f.sha256, f.owned) for f in files] for r, files in before.items()
        }
        (style,) = find(anew, "civitai:7")
        assert style.trigger_words == ("styled",)
        assert scan(anew, store_folder()).unchanged == 2


def test_sidecars_add_words_and_ids(registry: Registry, tmp_path: Path) -> None:
    path = write_lora(tmp_path / "loras" / "style_v2.safetensors")
    write_sidecar(
        path,
        ".civitai.info",
        {
            "id": 222, "modelId": 111, "baseModel": "SDXL 1.0", "trainedWords": ["styled", "by hand"],
            "model": {"name": "Style of\nthe Day", "tags": ["style"]},
            "files": [{"hashes": {"SHA256": "AB" * 32}}],
        },
    )  # fmt: skip
    write_sidecar(path, ".json", {"activation text": "ignored", "sd version": "SD1"})
    scan(registry, path.parent)
    (model,) = find(registry, "civitai:222")
    assert (model.name, model.reference, model.source) == ("style_v2", str(path), "local")
    assert (model.base_model, model.trigger_words) == ("SDXL 1.0", ("styled", "by hand"))
    assert model.tags == ("style", "Style of the Day") and (model.version_id, model.model_id) == (222, 111)
    (file,) = files_of(registry, model)
    assert file.claimed_sha256 == "ab" * 32 and file.sha256 is None  # claimed, not believed
    path.with_name("style_v2.civitai.info").unlink()
    assert scan(registry, path.parent).changed == 1
    (model,) = list_models(registry)
    assert model.trigger_words == ("ignored",) and model.version_id is None


def test_remarks_in_a_loras_own_header_count_where_nothing_lies_beside_it(registry: Registry, tmp_path: Path) -> None:
    said = {"modelspec.trigger_phrase": "styled, by hand", "ss_base_model_version": "sdxl_base_v1-0"}
    write_lora(tmp_path / "loras" / "style.safetensors", metadata=said)
    scan(registry, tmp_path / "loras")
    (model,) = list_models(registry)
    assert model.trigger_words == ("styled", "by hand") and model.base_model == "sdxl_base_v1-0"
