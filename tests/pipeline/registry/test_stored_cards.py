"""What is known of a model stays with it: through scans, changes, migrations and the loss of the registry."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from opened_files import files_opened
from small_weights import into_store, write_demo, write_hub_cache, write_lora, write_sidecar

from pipeline.registry.database import MIGRATIONS, Registry
from pipeline.registry.queries import find, list_models
from pipeline.registry.records import ModelCard, StoredModel
from pipeline.registry.scanning import scan
from pipeline.registry.sidecars import MAX_BYTES
from pipeline.registry.store_folders import registry_file, store_folder
from pipeline.registry.stored_cards import card_of, cards
from pipeline.registry.storing import add
from pipeline.registry.upkeep import remove
from pipeline.version import VERSION

KEPT = Path(__file__).parents[2] / "data" / "kept" / "home" / "registry.sqlite"

NOTED: dict[str, Any] = {
    "id": 22,
    "modelId": 11,
    "baseModel": "Pony",
    "trainedWords": ["inkwash"],
    "description": "<p>Soft brushes on rice paper.</p><p>Weight 0.6-0.8, clip skip: 2, 25-30 steps</p>",
    "model": {"name": "Ink", "tags": ["style"]},
    "stats": {"downloadCount": 1200, "thumbsUpCount": 34},
    "images": [{"meta": {"prompt": "inkwash, a heron", "cfgScale": 6, "sampler": "DPM++ 2M Karras"}}],
}
HEADER = {"ss_tag_frequency": json.dumps({"10_ink": {"heron": 20, "reeds": 5}, "2_more": {"reeds": 30}})}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a LoRA, notes beside it and a table in its header."""
    write_sidecar(write_lora(tmp_path / "loras" / "ink.safetensors", metadata=HEADER), ".civitai.info", NOTED)
    return tmp_path / "loras"


def the_card(registry: Registry) -> ModelCard:
    (model,) = list_models(registry)
    return card_of(registry, model)


def test_notes_and_header_make_one_card(registry: Registry, folder: Path) -> None:
    scan(registry, folder)
    (model,) = list_models(registry)
    assert card_of(registry, model) == ModelCard(
        title="Ink",
        description="Soft brushes on rice paper.\n\nWeight 0.6-0.8, clip skip: 2, 25-30 steps",
        base_model="Pony",
        tags=("style",),
        trigger_words=("inkwash",),
        example_prompts=("inkwash, a heron",),
        tag_counts=(("reeds", 35), ("heron", 20)),
        weight=0.7,
        weight_min=0.6,
        weight_max=0.8,
        settings=(("steps", 28), ("guidance_scale", 6.0), ("scheduler", "DPM++ 2M Karras")),
        downloads=1200,
        thumbs_up=34,
    )
    assert cards(registry) == {model.id: card_of(registry, model)}


def test_card_of_what_has_nothing_to_tell_is_empty_and_takes_no_room(registry: Registry, tmp_path: Path) -> None:
    write_lora(tmp_path / "loras" / "plain.safetensors")
    scan(registry, tmp_path / "loras")
    assert the_card(registry) == ModelCard() and cards(registry) == {}


def test_card_follows_the_notes_and_goes_with_the_model(registry: Registry, folder: Path) -> None:
    scan(registry, folder)
    before = the_card(registry)
    assert scan(registry, folder).unchanged == 1 and the_card(registry) == before
    write_sidecar(folder / "ink.safetensors", ".civitai.info", {**NOTED, "description": "Other words entirely"})
    assert scan(registry, folder).changed == 1 and the_card(registry).description == "Other words entirely"
    (folder / "ink.civitai.info").unlink()
    scan(registry, folder)
    assert the_card(registry) == ModelCard(tag_counts=(("reeds", 35), ("heron", 20)))
    (folder / "ink.safetensors").unlink()
    scan(registry, folder)
    assert registry.rows("SELECT count(*) FROM cards")[0][0] == 0


def test_removing_a_model_removes_its_card(registry: Registry, folder: Path) -> None:
    scan(registry, folder)
    remove(registry, list_models(registry)[0])
    assert cards(registry) == {}


def test_words_of_the_description_are_found(registry: Registry, folder: Path) -> None:
    scan(registry, folder)
    assert [model.name for model in list_models(registry, text="RICE inkwash")] == ["ink"]
    assert list_models(registry, text="rice granite") == []


def test_what_an_earlier_version_has_seen_is_looked_at_again_once(registry: Registry, folder: Path) -> None:
    scan(registry, folder)
    card = the_card(registry)
    with registry.changing() as connection:
        connection.execute("DELETE FROM cards")
        connection.execute("UPDATE scanned SET by = ?", (VERSION,))
    report = scan(registry, folder)
    assert (report.unchanged, report.changed, report.added) == (1, 0, 0) and the_card(registry) == card
    with files_opened(folder) as opened:
        scan(registry, folder)
    assert opened == []


def test_registry_of_the_version_without_cards_is_migrated(home: Path, folder: Path) -> None:
    home.mkdir()
    shutil.copyfile(KEPT, registry_file())
    with Registry() as registry:
        assert registry.rows("PRAGMA user_version")[0][0] == len(MIGRATIONS)
        known = {model.name for model in list_models(registry)}
        assert known == {"model", "ink"} and cards(registry) == {}
        scan(registry, folder)
        assert len(list_models(registry)) == 3 and len(cards(registry)) == 1


def test_card_of_a_fetched_model_outlives_the_registry(home: Path, tmp_path: Path) -> None:
    file = into_store(write_lora(tmp_path / "ink.safetensors"))
    card = ModelCard("Ink", "soft", tag_counts=(("heron", 2),), settings=(("steps", 28),), weight=0.5, thumbs_up=0)
    model = StoredModel("ink", "civitai", "civitai:22", "lora", file.path, file.bytes)
    with Registry() as registry:
        add(registry, model, [file], card)
    registry_file().unlink()
    with Registry() as registry:
        scan(registry, store_folder())
        assert the_card(registry) == card


def test_fetched_model_without_a_card_gets_that_of_its_header(home: Path, tmp_path: Path) -> None:
    """As of what an earlier version has fetched, once the store is scanned."""
    file = into_store(write_lora(tmp_path / "ink.safetensors", metadata=HEADER))
    with Registry() as registry:
        add(registry, StoredModel("ink", "civitai", "civitai:22", "lora", file.path, file.bytes), [file])
        assert the_card(registry) == ModelCard()
        scan(registry, store_folder())
        assert the_card(registry) == ModelCard(tag_counts=(("reeds", 35), ("heron", 20)))


@pytest.mark.parametrize("card", ["x", 5, {"description": 5, "tags": "ink", "settings": [1], "weight": "a", "new": 1}])
def test_damaged_card_in_a_note_costs_the_card_at_most(home: Path, tmp_path: Path, card: Any) -> None:
    file = into_store(write_lora(tmp_path / "ink.safetensors"))
    with Registry() as registry:
        add(registry, StoredModel("ink", "civitai", "civitai:22", "lora", file.path, file.bytes), [file])
        (note,) = (store_folder() / "notes").iterdir()
        note.write_text(json.dumps(json.loads(note.read_text()) | {"card": card}))
        with registry.changing() as connection:
            connection.execute("DELETE FROM models")
        scan(registry, store_folder())
        assert [the_card(registry)] == [ModelCard()]


def test_readme_of_a_folder_is_read_and_noticed(registry: Registry, tmp_path: Path) -> None:
    folder = write_demo(tmp_path / "models" / "postcards")
    scan(registry, tmp_path / "models")
    assert the_card(registry) == ModelCard()
    (folder / "README.md").write_text("---\nlicense: mit\nbase_model: org/base\n---\n# Cards\n\nSteps: 20")
    assert scan(registry, tmp_path / "models").changed == 1
    assert the_card(registry) == ModelCard(
        "Cards", "# Cards\n\nSteps: 20", "org/base", "mit", settings=(("steps", 20),)
    )
    (model,) = list_models(registry)
    assert (model.base_model, model.licence) == ("org/base", "mit")


def test_readme_of_a_cached_repository_belongs_to_all_of_it(registry: Registry, tmp_path: Path) -> None:
    (readme := tmp_path / "README.md").write_text("---\ninstance_prompt: a TOK drawing\n---\nDrawings of birds.")
    lora = write_lora(tmp_path / "ink.safetensors")
    write_hub_cache(tmp_path / "hub", "org/ink", "a" * 40, {"weights/ink.safetensors": lora, "README.md": readme})
    scan(registry, tmp_path / "hub")
    (model,) = find(registry, "hf:org/ink")
    assert model.trigger_words == ("a TOK drawing",)
    assert card_of(registry, model).description == "Drawings of birds."


HOSTILE_TEXT = "\x1b[2J\u202e<script>steal()</script>&lt;img src=x onerror=y&gt;\0\ud800ink" + "a" * 2_000

HOSTILE: dict[str, Any] = {
    "texts": {
        "description": HOSTILE_TEXT, "baseModel": HOSTILE_TEXT, "trainedWords": [HOSTILE_TEXT, 5] * 100,
        "model": {"name": HOSTILE_TEXT, "tags": [HOSTILE_TEXT + str(n) for n in range(101)]},
        "images": [{"meta": {"prompt": HOSTILE_TEXT + str(n), "sampler": HOSTILE_TEXT}} for n in range(40)],
        "notes": HOSTILE_TEXT, "negative text": HOSTILE_TEXT, "usage_tips": HOSTILE_TEXT,
        "activation text": "".join(f"{n}{HOSTILE_TEXT[:9]},\n" for n in range(999)),
        "ModelDescription": HOSTILE_TEXT, "modelDescription": HOSTILE_TEXT, "civitai": {"description": HOSTILE_TEXT},
    },
    "types": {
        "description": ["x"], "baseModel": {"a": 1}, "trainedWords": 3, "stats": [1], "images": {"meta": 1},
        "model": ["x"], "preferred weight": "heavy", "usage_tips": {"strength": 1}, "notes": 5, "civitai": "x",
        "Stats": 3, "activation text": ["x", 3], "negative text": False,
    },
    "numbers": {
        "stats": {"downloadCount": -5, "thumbsUpCount": 1e300}, "preferred weight": 1e300,
        "images": [{"meta": {"prompt": 5, "steps": -1, "cfgScale": "NaN", "clipSkip": 10**400}}, None, 7],
        "usage_tips": '{"strength": NaN, "strength_min": "1e999", "strength_max": [], "clip_skip": true}',
        "Stats": {"downloadCount": 2**80},
    },
    "deep tips": {"usage_tips": "[" * 9_000},
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("ending", [".civitai.info", ".metadata.json", ".cm-info.json", ".json"])
def test_lies_and_harm_in_notes_end_as_short_plain_text(
    case: str, ending: str, registry: Registry, tmp_path: Path
) -> None:
    write_sidecar(write_lora(tmp_path / "loras" / "ink.safetensors"), ending, HOSTILE[case])
    assert scan(registry, tmp_path / "loras").refused == []
    check_bounded(the_card(registry))


def check_bounded(card: ModelCard) -> None:
    """That a card can be printed, searched and chosen by without harm."""
    lists = (card.tags, card.trigger_words, card.example_prompts, card.negative_words)
    lines = [card.title, card.base_model, card.licence, *(word for one in lists for word in one)]
    lines += [tag for tag, _ in card.tag_counts]
    assert all(line.isprintable() and len(line) <= 600 for line in lines)
    assert len(card.description) <= 2_000 and card.description.replace("\n", "").isprintable()
    assert "steal" not in card.description and "onerror" not in card.description and "<" not in card.description
    assert max(map(len, lists)) <= 100 and len(card.tag_counts) <= 200 and len(card.example_prompts) <= 6
    assert all(weight is None or -10 <= weight <= 10 for weight in (card.weight, card.weight_min, card.weight_max))
    assert all(count is None or 0 <= count < 2**53 for count in (card.downloads, card.thumbs_up))
    for name, value in card.settings:
        assert name == "scheduler" or 0 <= float(value) <= 1000, (name, value)


HOSTILE_HEADERS: dict[str, dict[str, str]] = {
    "no JSON": {"ss_tag_frequency": "{'a': 1}"},
    "deep": {"ss_tag_frequency": '{"a":' * 5_000, "ss_datasets": "[" * 5_000},
    "types": {"ss_tag_frequency": '[{"a": {"b": 1}}]',
              "ss_datasets": '[3, {"tag_frequency": [1]}, {"tag_frequency": 1}]',
              "ss_sd_model_name": "null"},
    "counts": {"ss_tag_frequency": '{"a": {"b": "5", "c": -1, "d": 1e99, "e": true, "f": null, "g": [1]}}'},
    "texts": {"ss_tag_frequency": json.dumps({"a": {HOSTILE_TEXT[:500] + str(n): n for n in range(3_000)}})},
    "remarks": {"modelspec.description": HOSTILE_TEXT, "modelspec.title": HOSTILE_TEXT, "ss_output_name": "\0",
                "modelspec.trigger_phrase": HOSTILE_TEXT, "modelspec.tags": "," * 9_000,
                "ss_sd_model_name": "/" * 9_000},
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE_HEADERS)
def test_lies_and_harm_in_headers_end_as_short_plain_text(case: str, registry: Registry, tmp_path: Path) -> None:
    write_lora(tmp_path / "loras" / "ink.safetensors", metadata=HOSTILE_HEADERS[case])
    assert scan(registry, tmp_path / "loras").found == 1
    card = the_card(registry)
    check_bounded(card)
    assert (len(card.tag_counts) > 0) == (case == "texts")


def test_large_notes_are_not_even_parsed(registry: Registry, folder: Path) -> None:
    (folder / "ink.civitai.info").write_text(json.dumps({**NOTED, "x": "a" * (10 * MAX_BYTES)}))
    scan(registry, folder)
    assert the_card(registry) == ModelCard(tag_counts=(("reeds", 35), ("heron", 20)))
