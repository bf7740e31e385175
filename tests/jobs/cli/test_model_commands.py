"""`darkroom models` as people and scripts call it, on small files of real form."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from published_weights import write_header
from small_weights import (
    fetched,
    into_store,
    write_demo,
    write_embedding,
    write_hub_cache,
    write_lora,
    write_sidecar,
)  # fmt: skip

from pipeline.registry.database import Registry
from pipeline.registry.store_folders import registry_file
from pipeline.system.units import size_text

REPO = Path(__file__).parents[3]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(darkroom: Run, home: Path) -> Run:
    return partial(darkroom, "models")


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder as users have them: two LoRAs, one with a sidecar, an embedding, a model, a page saved as weights."""
    folder = tmp_path / "mine"
    ink = write_lora(folder / "loras" / "Ink Wash_v2.safetensors")
    write_sidecar(ink, ".civitai.info", {"id": 22, "modelId": 11, "trainedWords": ["inkwash"], "baseModel": "SDXL 1.0"})
    write_lora(folder / "loras" / "paper.safetensors", family="sd15", rank=8)
    write_embedding(folder / "embeddings" / "quiet.safetensors")
    write_demo(folder / "diffusers" / "postcards")
    (folder / "loras" / "page.safetensors").write_text("<!DOCTYPE html><html>log in</html>")
    return folder


def listed(run: Run, *arguments: object) -> list[dict[str, Any]]:
    code, out, _ = run("list", "--format", "json", *arguments)
    assert code == 0
    return list(json.loads(out))


def values_of(out: str) -> dict[str, str]:
    """The lines `name:   value`."""
    return {name: value.strip() for name, _, value in (line.partition(":") for line in out.splitlines())}


def test_scan_counts_and_says_what_it_refused(run: Run, mine: Path) -> None:
    code, out, _ = run("scan", mine)
    refused, counts = out.splitlines()
    assert code == 0
    assert refused.startswith(f"refused: {mine / 'loras' / 'page.safetensors'}: is a web page")
    assert counts == "4 models: 4 new, 0 changed, 0 unchanged; 0 gone, 1 refused"
    (mine / "loras" / "paper.safetensors").unlink()
    code, out, _ = run("scan", mine, "--json")
    said = json.loads(out)
    assert (said["found"], said["unchanged"], said["gone"]) == (3, 3, 1)
    assert [entry["path"] for entry in said["refused"]] == [str(mine / "loras" / "page.safetensors")]


def test_list_is_filtered_sorted_and_printed_in_every_form(run: Run, mine: Path) -> None:
    run("scan", mine)
    _, out, _ = run("list")
    head, *rows = out.splitlines()
    assert head.split() == ["name", "kind", "family", "precision", "size", "reference"]
    assert [row.split("  ")[0] for row in rows] == ["Ink Wash_v2", "paper", "postcards", "quiet"]
    assert len({row.index(str(mine)) for row in rows} | {head.index("reference")}) == 1  # aligned
    loras = listed(run, "--kind", "lora")
    assert {one["name"]: one["family"] for one in loras} == {"Ink Wash_v2": "sdxl", "paper": "sd15"}
    assert [one["name"] for one in listed(run, "--family", "sdxl")] == ["Ink Wash_v2"]
    assert loras[0]["trigger_words"] == ["inkwash"] and loras[0]["version_id"] == 22
    sizes = [one["bytes"] for one in listed(run, "--sort", "bytes")]
    assert sizes == sorted(sizes, reverse=True) and len(sizes) == 4
    assert len(listed(run, "--limit", "1")) == 1 and listed(run, "--source", "civitai") == []
    _, out, _ = run("list", "--format", "csv", "--kind", "lora")
    assert [row["path"] for row in csv.DictReader(io.StringIO(out))] == [one["path"] for one in loras]
    _, out, _ = run("list", "--format", "paths", "--kind", "embedding")
    assert out.splitlines() == [str(mine / "embeddings" / "quiet.safetensors")]


def test_table_stops_at_fifty_unless_told_otherwise(run: Run, tmp_path: Path) -> None:
    for number in range(51):
        write_embedding(tmp_path / "many" / f"{number}.safetensors")
    run("scan", tmp_path / "many")
    _, out, err = run("list")
    assert len(out.splitlines()) == 51 and "the first 50; --limit 0 shows all" in err
    assert len(run("list", "--limit", "0")[1].splitlines()) == 52
    assert len(run("list", "--format", "paths")[1].splitlines()) == 51


def test_search_looks_in_names_and_trigger_words(run: Run, mine: Path) -> None:
    run("scan", mine)
    assert run("search", "inkw", "--format", "paths")[1].splitlines() == [
        str(mine / "loras" / "Ink Wash_v2.safetensors")
    ]
    code, out, err = run("search", "inkw", "paper", "--local")
    assert (code, out) == (0, "") and "darkroom models scan FOLDER" in err


def test_show_takes_names_hashes_hub_references_and_paths(run: Run, mine: Path) -> None:
    run("scan", mine)
    _, out, _ = run("show", "ink-wash", "--json")
    (file,) = json.loads(out)["files"]
    assert file["path"] == str(mine / "loras" / "Ink Wash_v2.safetensors") and file["sha256"] is None
    _, out, _ = run("verify", "ink-wash", "--json")
    sha256 = json.loads(out)["files"][0]["sha256"]
    for reference in (f"sha256:{sha256[:12]}", "civitai:22", "civitai:11", file["path"]):
        code, out, _ = run("show", reference)
        assert code == 0 and out.splitlines()[0] == "name:            Ink Wash_v2", reference
        assert f"sha256:          {sha256}" in out.splitlines()
    assert "trigger words:   inkwash" in out.splitlines()


NOTED = {
    "baseModel": "Pony",
    "trainedWords": ["inkwash"],
    "description": "<h1>Ink</h1><p>Soft brushes.</p><p>Weight: 0.6-0.8, steps: 28</p><script>steal()</script>\x1b[2J",
    "model": {"name": "Ink by hand", "tags": ["style"]},
    "stats": {"downloadCount": 12345, "thumbsUpCount": 67},
    "images": [{"meta": {"prompt": "inkwash,\x1b[2J a heron\r\nin reeds", "sampler": "Euler a"}}],
}
"""What Civitai Helper has noted of a LoRA, with what drives a terminal."""


def test_show_prints_what_is_claimed_of_a_model(run: Run, tmp_path: Path) -> None:
    table = {"10_ink": {"heron": 1200, "reeds\u202e": 30, **{f"tag {n}": 1 for n in range(100)}}}
    lora = write_lora(tmp_path / "mine" / "ink.safetensors", metadata={"ss_tag_frequency": json.dumps(table)})
    write_sidecar(lora, ".civitai.info", NOTED)
    run("scan", lora.parent)
    code, out, _ = run("show", "ink")
    said = values_of(out)
    assert code == 0 and not drives(out) and "steal" not in out
    assert (said["title"], said["base model"], said["trigger words"]) == ("Ink by hand", "Pony", "inkwash")
    assert (said["weight"], said["settings"]) == ("0.7 from 0.6 to 0.8", "steps 28, scheduler Euler a")
    assert said["trained on"].startswith("heron 1,200, reeds 30, tag 0 1") and "tag 50" not in said["trained on"]
    assert (said["statistics"], said["example"]) == ("12,345 downloads, 67 thumbs up", "inkwash, [2J a heron in reeds")
    assert "Soft brushes." in out.splitlines()
    claims = json.loads(run("show", "ink", "--json")[1])["claims"]
    assert (claims["weight_min"], claims["settings"]) == (0.6, {"steps": 28, "scheduler": "Euler a"})
    assert list(claims["tag_counts"].items())[:2] == [("heron", 1200), ("reeds", 30)] and claims["downloads"] == 12345
    assert [hit["name"] for hit in json.loads(run("search", "brushes", "--local", "--format", "json")[1])] == ["ink"]


def test_names_that_mean_none_or_several_are_one_line(run: Run, mine: Path) -> None:
    write_lora(mine / "loras" / "old" / "paper.safetensors")
    run("scan", mine)
    for command in ("show", "remove", "verify"):
        code, _, err = run(command, "nothing")
        assert code == 2 and err.startswith("darkroom: 'nothing': no such model is known;") and err.count("\n") == 1
        code, _, err = run(command, "paper")
        assert code == 2 and err.count("\n") == 1
        assert str(mine / "loras" / "old" / "paper.safetensors") in err and "say which" in err
    code, _, err = run("list", "--family", "sdx")
    assert code == 2 and "there is no family 'sdx'; families are sd15, sdxl" in err
    code, _, err = run("scan", mine / "nowhere")
    assert code == 2 and "no such folder" in err
    assert run("list", "--kind", "foo")[0] == 2


def test_identify_finds_the_same_file_and_the_same_weights(run: Run, mine: Path, tmp_path: Path) -> None:
    run("scan", mine)
    copy = shutil.copyfile(mine / "loras" / "Ink Wash_v2.safetensors", tmp_path / "download.safetensors")
    code, out, _ = run("identify", copy, "--json")  # no file was hashed before
    assert code == 0 and [one["name"] for one in json.loads(out)["same"]] == ["Ink Wash_v2"]
    assert "the same file:" in run("identify", copy)[1].splitlines()
    other = write_lora(tmp_path / "other.safetensors", rank=16)
    code, out, err = run("identify", other)
    assert code == 0 and len(out.splitlines()) == 1 and "no known model has this content" in err
    code, _, err = run("identify", tmp_path / "gone.safetensors")
    assert code == 2 and "no such file" in err
    code, _, err = run("identify", mine)
    assert code == 2 and "is a folder; expected a file" in err


def test_verify_notes_hashes_and_then_finds_what_has_changed(run: Run, mine: Path) -> None:
    run("scan", mine)
    code, out, _ = run("verify")
    assert code == 0 and "0 missing or changed" in out
    changed, gone = mine / "loras" / "paper.safetensors", mine / "embeddings" / "quiet.safetensors"
    content = bytearray(changed.read_bytes())
    content[-1] ^= 1
    changed.write_bytes(content)
    gone.unlink()
    code, out, _ = run("verify")
    assert code == 3
    assert set(out.splitlines()[:-1]) == {f"changed: paper: {changed}", f"missing: quiet: {gone}"}
    assert run("verify", "postcards")[0] == 0


def test_what_was_scanned_in_is_never_deleted(run: Run, mine: Path) -> None:
    run("scan", mine)
    path = mine / "loras" / "Ink Wash_v2.safetensors"
    code, out, _ = run("remove", "ink-wash")
    assert code == 0 and f"{path} stays" in out and path.is_file()
    assert len(listed(run)) == 3
    code, out, _ = run("prune", "--max-gb", "0")
    assert code == 0 and out == "0 models removed, 0 B freed\n"
    run("scan", mine)
    assert len(listed(run)) == 4


def test_what_was_fetched_is_deleted(run: Run, tmp_path: Path) -> None:
    write_lora(tmp_path / "one.safetensors")
    write_lora(tmp_path / "two.safetensors", rank=8)
    with Registry() as registry:
        one, two = (fetched(registry, tmp_path / f"{name}.safetensors", n) for n, name in ((1, "one"), (2, "two")))
    code, out, _ = run("remove", "civitai:1")
    assert code == 0 and out.startswith("one: removed, ") and not one.path.exists()
    code, out, _ = run("prune", "--max-gb", "0")
    assert code == 0 and out.startswith("removed: two (civitai:2)\n1 models removed, ") and not two.path.exists()


def test_what_downloads_left_is_shown_and_pruned(run: Run, tmp_path: Path) -> None:
    assert values_of(run("stats")[1])["left over"] == "nothing"
    stray = into_store(write_lora(tmp_path / "stray.safetensors"))
    partial = stray.path.with_name(f"{'ab' * 32}.gguf.partial")
    partial.write_bytes(bytes(2**20))
    size = size_text(stray.bytes + 2**20)
    for said in (values_of(run("stats")[1])["left over"], run("list")[2]):
        assert f"2 from interrupted or refused downloads, {size}; darkroom models prune --max-gb N" in said
    assert json.loads(run("stats", "--json")[1])["left_over"] == 2
    code, out, _ = run("prune", "--max-gb", "0")
    assert (code, out) == (0, f"0 models and 2 leftover files of downloads removed, {size} freed\n")
    assert not stray.path.exists() and not partial.exists()


def test_stats_count_by_kind_family_and_source(run: Run, mine: Path) -> None:
    run("scan", mine)
    _, out, _ = run("stats", "--json")
    said = json.loads(out)
    assert said["models"] == 4 and said["by_kind"] == {"lora": 2, "checkpoint": 1, "embedding": 1}
    assert said["bytes"] == sum(one["bytes"] for one in listed(run)) and said["downloaded"] == 0
    assert "by source:       local 4" in run("stats")[1].splitlines()


HOSTILE = "ink\r\u202egnp.\x1b[2J\nforged"
"""In a file's name: back to the line's start, right to left, an empty screen, another line."""


def drives(text: str) -> bool:
    """Whether text does anything to a terminal but fill lines."""
    return any(unicodedata.category(char) in ("Cc", "Cf", "Cs") and char != "\n" for char in text)


@pytest.mark.parametrize("command", [["list"], ["search", "ink", "--local"]])
def test_names_of_files_drive_no_terminal_and_json_has_them_as_they_are(
    run: Run, tmp_path: Path, command: list[str]
) -> None:
    file = write_lora(tmp_path / "mine" / f"{HOSTILE}.safetensors")
    assert run("scan", file.parent)[0] == 0
    for format, lines in (("table", 2), ("csv", 2), ("paths", 1), ("json", None)):
        code, out, _ = run(*command, "--format", format)
        assert code == 0 and not drives(out), format
        if format in ("table", "paths"):
            assert len(out.splitlines()) == lines
    (row,) = json.loads(out)
    assert (row["path"], row["name"]) == (str(file), HOSTILE)
    verified = run("verify", "--json")[1]
    reference = f"sha256:{json.loads(verified)['files'][0]['sha256']}"
    shown = run("show", reference, "--json")[1]
    assert not drives(verified + shown) and json.loads(shown)["path"] == str(file)
    assert values_of(run("show", reference)[1])["path"].endswith("forged.safetensors")
    assert not drives(run("show", HOSTILE)[2])


def test_refused_names_forge_no_lines(run: Run, tmp_path: Path) -> None:
    (folder := tmp_path / "mine").mkdir()
    (folder / f"{HOSTILE}.safetensors").write_text("<html>")
    out = run("scan", folder)[1]
    assert not drives(out) and len(out.splitlines()) == 2


@pytest.mark.parametrize("repository", ["org/ink", "ink"])
def test_hub_cache_is_called_by_its_reference(run: Run, tmp_path: Path, repository: str) -> None:
    lora = write_lora(tmp_path / "pytorch_lora_weights.safetensors")
    write_hub_cache(tmp_path / "hub", repository, "a" * 40, {lora.name: lora})
    run("scan", tmp_path / "hub")
    code, out, _ = run("show", f"hf:{repository}")
    assert code == 0 and out.startswith("name:            ink\n")


def test_a_family_that_only_a_note_tells_is_told_as_that(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    key = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
    lora = write_header(
        folder / "ink.safetensors", {f"{key}.lora_down.weight": (4, 768), f"{key}.lora_up.weight": (768, 4)}
    )
    write_sidecar(lora, ".json", {"sd version": "SDXL"})
    write_lora(folder / "sure.safetensors")
    run("scan", folder)
    assert "Stable Diffusion XL (by its base model; the tensors do not tell)\n" in run("show", "ink")[1]
    assert "Stable Diffusion XL\n" in run("show", "sure")[1]


def test_damaged_registry_is_one_line(run: Run) -> None:
    registry_file().parent.mkdir(parents=True)
    registry_file().write_bytes(b"not a database" * 100)
    for arguments in (["list"], ["stats"], ["show", "ink"], ["verify"]):
        code, out, err = run(*arguments)
        assert code == 2 and out == "" and err.count("\n") == 1 and "is damaged" in err


def test_list_stays_cold(run: Run, mine: Path) -> None:
    run("scan", mine)
    look = (
        "import sys; from jobs.cli import entry; sys.argv = ['darkroom', 'models', 'list']; assert entry.main() == 0; "
        "print({'torch', 'diffusers', 'transformers', 'huggingface_hub', 'numpy', 'duckdb'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", look], cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
