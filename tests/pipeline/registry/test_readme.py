"""READMEs as the hub's programs, authors and strangers write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.registry.hints import Hints
from pipeline.registry.readme import readme_hints
from pipeline.registry.records import ModelCard


def read(folder: Path, text: str | bytes) -> Hints:
    path = folder / "README.md"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return readme_hints(path)


def test_readme_of_a_training_script_is_understood(tmp_path: Path) -> None:
    """As diffusers' `train_dreambooth_lora_flux.py` writes it with huggingface_hub's `ModelCard`, which wraps texts."""
    text = """---
base_model: black-forest-labs/FLUX.1-dev
library_name: diffusers
license: other
license_name: flux-1-dev-non-commercial
instance_prompt: 'a photo of TOK, it''s red'
widget:
- text: 'a TOK dog in a bucket that stands in the middle of the sea, at dusk, with
    a lantern'
  output:
    url: image_0.png
- output:
    url: image_1.png
  text: >-
    a TOK cat,
    asleep
- text: '-'
tags:
- text-to-image
- "lora"
- license:other
# a remark
- flux
---

<!-- This model card has been generated automatically. -->

# Flux LoRA - org/ink

Use `TOK` with a **weight: 0.9** and 28 steps.

```py
pipeline(prompt, num_inference_steps=28, guidance_scale=3.5)
```
"""
    hints = read(tmp_path, text)
    assert hints.card.title == "Flux LoRA - org/ink"
    assert (hints.card.base_model, hints.card.licence) == (
        "black-forest-labs/FLUX.1-dev",
        "flux-1-dev-non-commercial",
    )
    assert hints.card.trigger_words == ("a photo of TOK, it's red",)
    assert hints.card.tags == ("text-to-image", "lora", "flux")
    assert hints.card.example_prompts == (
        "a TOK dog in a bucket that stands in the middle of the sea, at dusk, with a lantern",
        "a TOK cat, asleep",
    )
    assert hints.card.description.startswith("# Flux LoRA") and "generated" not in hints.card.description
    assert hints.said == {"steps": "28", "guidance_scale": "3.5", "weight": "0.9"}


@pytest.mark.parametrize(
    ("front", "card"),
    [
        ("tags: [art, 'oil paint']", ModelCard(tags=("art", "oil paint"))),
        ("tags: art", ModelCard(tags=("art",))),
        ("base_model:\n  - org/one\n  - org/two", ModelCard(base_model="org/one")),
        ("base_model:", ModelCard()),
        ('instance_prompt: "a \\"TOK\\" bird"', ModelCard(trigger_words=('a "TOK" bird',))),
        ("instance_prompt: >-\n  a TOK\n  bird", ModelCard(trigger_words=("a TOK bird",))),
        ("widget: nonsense\ntags: {a: b}", ModelCard(tags=())),
        ("- a list\n- at the top", ModelCard()),
    ],
)
def test_forms_of_front_matter(front: str, card: ModelCard, tmp_path: Path) -> None:
    assert read(tmp_path, f"---\n{front}\n---\n").card == card


def test_without_front_matter_the_text_is_all(tmp_path: Path) -> None:
    assert read(tmp_path, "# Ink\n\nlicense: mit").card == ModelCard("Ink", "# Ink\n\nlicense: mit")
    assert read(tmp_path, "---\nlicense: mit\nnever closed").card.licence == ""
    assert readme_hints(None) == readme_hints(tmp_path / "none.md") == Hints()


HOSTILE: dict[str, bytes] = {
    "not UTF-8": b"---\nlicense: \xff\xfe\n---\n\xff",
    "large": b"---\ntags:\n" + b"- x\n" * 500_000 + b"---\n" + b"word " * 2_000_000,
    "many keys": b"---\n" + b"".join(b"k%d: v\n" % n for n in range(20_000)) + b"---\n",
    "dashes": b"---\n" * 60_000,
    "tags unfinished": b"<a " * 80_000,
    "a long line": b"---\nlicense: " + b"m" * 200_000 + b"\n---\n# " + b"t" * 50_000,
    "examples": b"---\nwidget:\n" + b"- text: a\n      b\n" * 900 + b"---\n",
    "controls": b"---\nlicense: m\x1b[2Ji\xe2\x80\xaet\nwidget:\n- text: \x07a\n---\n"
    b"# \x1b]0;owned\x07\n<script>steal()</script>",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_readmes_end_as_short_plain_text(case: str, tmp_path: Path) -> None:
    card = read(tmp_path, HOSTILE[case]).card
    lines = [card.title, card.licence, card.base_model, *card.tags, *card.trigger_words, *card.example_prompts]
    assert all(line.isprintable() and len(line) <= 600 for line in lines) and len(lines) <= 130
    assert len(card.description) <= 2_000 and card.description.replace("\n", "").isprintable()
    assert "steal" not in card.description
