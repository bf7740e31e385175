"""What a reference says, taken apart without looking anywhere."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ModelError
from pipeline.registry.resolve import is_remote, resolve
from pipeline.weights.references import Reference, parse

SOUND: dict[str, dict[str, Any]] = {
    "hf:org/name": {"scheme": "hf", "repository": "org/name"},
    "hf:org/name@main": {"scheme": "hf", "repository": "org/name", "revision": "main"},
    "hf:org/name@v1.0/unet/model.safetensors": {
        "scheme": "hf", "repository": "org/name", "revision": "v1.0", "file": "unet/model.safetensors",
    },
    "hf:org/name/vae": {"scheme": "hf", "repository": "org/name", "file": "vae"},
    "hf:org/name/a@2x.safetensors": {"scheme": "hf", "repository": "org/name", "file": "a@2x.safetensors"},
    "hf:org/name@refs/pr/5/vae": {"scheme": "hf", "repository": "org/name", "revision": "refs/pr/5", "file": "vae"},
    "hf:black-forest-labs/FLUX.1-dev": {"scheme": "hf", "repository": "black-forest-labs/FLUX.1-dev"},
    "civitai:12345": {"scheme": "civitai", "number": 12345},
    "sha256:" + "AB" * 32: {"scheme": "sha256", "sha256": "ab" * 32},
    "sha256:a5f58eb1c3": {"scheme": "sha256", "sha256": "a5f58eb1c3"},
    "/models/a.safetensors": {"scheme": "path"},
    "./a": {"scheme": "path"},
    "~/a": {"scheme": "path"},
    "loras/a.safetensors": {"scheme": "path"},
    "models/sdxl/base": {"scheme": "path"},
    "C:\\models\\a.safetensors": {"scheme": "path"},
    "Juggernaut XL v9": {"scheme": "name"},
    "style.safetensors": {"scheme": "name"},
    "org/name": {"scheme": "name"},
}  # fmt: skip


@pytest.mark.parametrize("text", SOUND)
def test_references_are_taken_apart(text: str) -> None:
    assert parse(text) == Reference(text, **SOUND[text])
    assert parse(f" {text} ") == Reference(text, **SOUND[text])


MALFORMED = {
    "": "is no reference",
    "   ": "is no reference",
    "a\0b": "is no reference",
    "a\nb": "is no reference",
    "x" * 1_001: "is no reference",
    "hf:": "expected hf:org/name",
    "hf:-name": "expected hf:org/name",
    "hf:name@": "expected hf:org/name",
    "hf:../name": "expected hf:org/name",
    "hf:org/..": "expected hf:org/name",
    "hf:org/na..me": "expected hf:org/name",
    "hf:org/name@": "expected hf:org/name",
    "hf:org/name@a b": "expected hf:org/name",
    "hf://org/name": "expected hf:org/name",
    "hf:org/" + "n" * 97: "expected hf:org/name",
    "hf:org/name?x=1": "expected hf:org/name",
    "hf:org/name/": "the file's name is empty",
    "hf:org/name/../../etc/passwd": "the file's name leaves its folder",
    "hf:org/name//etc/passwd": "the file's name leaves its folder",
    "hf:org/name@main/a\\b": "the file's name has characters",
    f"hf:org/name/{'a' * 300}": "the file's name is too long",
    "civitai:": "expected civitai:<id>",
    "civitai:name": "expected civitai:<id>",
    "civitai:-1": "expected civitai:<id>",
    "civitai:0": "expected civitai:<id>",
    "civitai:1/2": "expected civitai:<id>",
    "civitai:\u0661\u0662": "expected civitai:<id>",
    "civitai:" + "9" * 40: "expected civitai:<id>",
    "sha256:": "10 to 64 digits",
    "sha256:abcdef": "10 to 64 digits",
    "sha256:" + "g" * 64: "10 to 64 digits",
    "sha256:" + "a" * 65: "10 to 64 digits",
    "https://example.com/model.safetensors": "web addresses are not taken; expected hf:org/name",
    "HTTP://example.com": "web addresses are not taken",
    "https://huggingface.co/org/name": "write hf:org/name",
    "https://huggingface.co/org/name/blob/main/a.safetensors?download=true": "write hf:org/name@main/a.safetensors",
    "https://huggingface.co/name/blob/main/a.safetensors": "write hf:name@main/a.safetensors",
    "https://civitai.com/models/11/ink": "write civitai:11",
    "https://civitai.com/models/11/ink?modelVersionId=22": "write civitai:22",
    "https://civitai.com/api/download/models/22?type=Model": "write civitai:22",
}


@pytest.mark.parametrize("text", MALFORMED)
def test_what_is_no_reference_says_what_was_expected(text: str) -> None:
    with pytest.raises(ModelError, match=MALFORMED[text].replace("[", r"\[")) as caught:
        parse(text)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500
    with pytest.raises(ModelError) as caught:
        resolve(text)
    assert str(caught.value).startswith("model ") and str(caught.value).isprintable()
    assert not is_remote(text)


def test_suggestion_for_a_web_page_is_itself_a_reference() -> None:
    for text, words in MALFORMED.items():
        if words.startswith("write "):
            assert parse(words.removeprefix("write ")).scheme in ("hf", "civitai"), text


@given(st.text(max_size=80) | st.text(max_size=80).map("hf:org/name{}".format))
def test_any_text_is_a_reference_or_an_error(text: str) -> None:
    try:
        parsed = parse(text)
    except ModelError as error:
        assert str(error).isprintable()
        return
    assert parsed.text == text.strip()
    if parsed.file:
        assert ".." not in parsed.file.split("/") and not parsed.file.startswith("/")
