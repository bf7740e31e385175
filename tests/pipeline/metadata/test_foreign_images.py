"""Images of other programs, with the metadata that these write: described as text, whatever stands in them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pipeline.errors import ReadError
from pipeline.metadata.exif import user_comment
from pipeline.metadata.foreign import ImageDescription
from pipeline.metadata.reading import read_any

USER_COMMENT, MAKE, MODEL = 0x9286, 0x010F, 0x0110

FOOOCUS = {
    "prompt": "a red house",
    "full_prompt": ["cinematic still a red house", "emotional, harmonious"],
    "negative_prompt": "fog",
    "full_negative_prompt": ["anime, fog", "cartoon"],
    "base_model": "juggernautXL",
    "base_model_hash": "aeb7e9e689",
    "loras": [["sd_xl_offset_example-lora_1.0", 0.1, "4852686128"]],
    "sampler": "dpmpp_2m_sde_gpu",
    "scheduler": "karras",
    "seed": "5",
    "steps": 30,
    "guidance_scale": 4,
    "resolution": "(1152, 896)",
    "version": "Fooocus v2.5.5",
}
INVOKE = {
    "app_version": "5.4.2",
    "positive_prompt": "a red house",
    "negative_prompt": None,
    "seed": 5,
    "steps": 20,
    "cfg_scale": 7,
    "scheduler": "euler",
    "model": {"key": "1b", "hash": "blake3:abc", "name": "dreamshaper", "base": "sd-1", "type": "main"},
    "loras": [{"model": {"name": "ink"}, "weight": 0.75}],
}
SWARM = {
    "sui_image_params": {
        "prompt": "a red house",
        "negativeprompt": "fog",
        "model": "sd_xl_base_1.0",
        "seed": 5,
        "steps": 20,
        "cfgscale": 7.0,
        "aspectratio": "1:1",
        "swarm_version": "0.9.5.0",
    },
    "sui_extra_data": {"date": "2025-01-11"},
    "sui_models": [{"name": "sd_xl_base_1.0.safetensors", "param": "model", "hash": "0x31e35c80fc"}],
}
EASY = {
    "prompt": "a red house",
    "negative_prompt": "fog",
    "seed": 5,
    "use_stable_diffusion_model": "sd-v1-5",
    "sampler_name": "euler_a",
    "num_inference_steps": 20,
    "guidance_scale": 7.5,
    "use_vae_model": None,
    "lora_alpha": [0.5, 1],
}
EASY_LABELLED = {"Prompt": "a red house", "Negative Prompt": "fog", "Seed": "5", "Stable Diffusion model": "sd-v1-5"}
DRAW_THINGS = {
    "c": "a red house",
    "uc": "fog",
    "model": "sd_v1.5_f16.ckpt",
    "sampler": "Euler A Trailing",
    "scale": 7.5,
    "seed": 5,
    "size": "512x512",
    "steps": 20,
    "v2": {"sharpness": 0},
}
DRAW_THINGS_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:exif="http://ns.adobe.com/exif/1.0/" '
    'xmlns:xmp="http://ns.adobe.com/xap/1.0/"><xmp:CreatorTool>Draw Things</xmp:CreatorTool>'
    '<exif:UserComment><rdf:Alt><rdf:li xml:lang="x-default">{}</rdf:li></rdf:Alt></exif:UserComment>'
    "</rdf:Description></rdf:RDF></x:xmpmeta>"
)
COMFY = {
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "m.safetensors"}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red house", "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "fog", "clip": ["4", 1]}},
    "3": {
        "class_type": "KSampler",
        "inputs": {"sampler_name": "euler", "steps": 20, "cfg": 7, "seed": 5, "scheduler": "normal", "model": ["4", 0]}
        | {"positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0], "denoise": 1},
    },
}
A1111 = (
    "a red house\r\nNegative prompt: fog\nSteps: 20, Sampler: Euler a, CFG scale: 7.5, Seed: 5, Size: 16x16, "
    "Model hash: 31e35c80fc, Model: sd_xl_base_1.0"
)


def little_endian(text: str) -> bytes:
    return b"UNICODE\x00" + text.encode("utf-16-le")


def save(path: Path, texts: dict[str, Any] | None = None, xmp: str = "", **exif_tags: Any) -> Path:
    """A small picture with PNG texts (values that are no text as JSON), EXIF tags (`inner` in the Exif IFD), XMP."""
    exif = Image.Exif()
    has_exif, options = bool(exif_tags), dict[str, Any]()
    if "inner" in exif_tags:
        exif.get_ifd(0x8769)[USER_COMMENT] = exif_tags.pop("inner")
    for name, value in exif_tags.items():
        exif[{"outer": USER_COMMENT, "make": MAKE, "model": MODEL}[name]] = value
    if has_exif:
        options["exif"] = exif.tobytes()
    if path.suffix == ".png":
        info = PngInfo()
        for keyword, value in (texts or {}).items():
            info.add_itxt(keyword, value if isinstance(value, str) else json.dumps(value))
        if xmp:
            info.add_itxt("XML:com.adobe.xmp", xmp)
        options["pnginfo"] = info
    elif xmp:
        options["xmp"] = xmp.encode()
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(buffer, Image.registered_extensions()[path.suffix], **options)
    path.write_bytes(buffer.getvalue())
    return path


def described(path: Path) -> ImageDescription:
    found = read_any(path)
    assert all(isinstance(text, str) for text in (found.origin, found.prompt, found.negative_prompt))
    assert all(isinstance(text, str) for pair in found.fields.items() for text in pair)
    return found


DRAWN = DRAW_THINGS_XMP.format(json.dumps(DRAW_THINGS))
WRITTEN: list[tuple[str, str, dict[str, Any]]] = [
    ("Fooocus", ".png", {"texts": {"parameters": FOOOCUS, "fooocus_scheme": "fooocus"}}),
    ("Fooocus", ".jpg", {"outer": json.dumps(FOOOCUS)}),
    ("Fooocus", ".webp", {"outer": json.dumps(FOOOCUS)}),
    ("InvokeAI", ".png", {"texts": {"invokeai_metadata": INVOKE | {"negative_prompt": "fog"}}}),
    ("SwarmUI", ".png", {"texts": {"parameters": SWARM}}),
    ("SwarmUI", ".jpg", {"inner": little_endian(json.dumps(SWARM))}),
    ("Easy Diffusion", ".png", {"texts": EASY}),
    ("Easy Diffusion", ".png", {"texts": EASY_LABELLED}),
    ("Easy Diffusion", ".jpg", {"inner": user_comment(json.dumps(EASY))}),
    ("Easy Diffusion", ".webp", {"inner": user_comment(json.dumps(EASY))}),
    ("Draw Things", ".png", {"xmp": DRAWN}),
    ("Draw Things", ".jpg", {"xmp": DRAWN}),
    ("ComfyUI", ".webp", {"make": f"workflow:{json.dumps({'nodes': []})}", "model": f"prompt:{json.dumps(COMFY)}"}),
    ("ComfyUI", ".png", {"texts": {"prompt": COMFY}}),
    ("AUTOMATIC1111", ".png", {"texts": {"parameters": A1111}}),
    ("AUTOMATIC1111", ".png", {"inner": user_comment(A1111)}),
    ("AUTOMATIC1111", ".jpg", {"inner": b"ASCII\x00\x00\x00" + A1111.encode()}),
]


@pytest.mark.parametrize(("origin", "suffix", "content"), WRITTEN)
def test_prompts_and_seed_of_every_program(tmp_path: Path, origin: str, suffix: str, content: dict[str, Any]) -> None:
    found = described(save(tmp_path / f"image{suffix}", **content))
    assert (found.origin, found.prompt, found.negative_prompt) == (origin, "a red house", "fog")
    assert (found.fields["seed"], bool(found.fields["model"])) == ("5", True)


def test_what_is_missing_is_empty_and_what_is_nested_is_json(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    assert described(save(path, {"invokeai_metadata": INVOKE})).negative_prompt == ""
    fields = described(save(path, {"parameters": FOOOCUS})).fields
    assert json.loads(fields["loras"]) == FOOOCUS["loras"]
    assert fields["full_prompt"] == "cinematic still a red house, emotional, harmonious"
    assert described(save(path, {"parameters": FOOOCUS | {"prompt": {"a": ["red", 1]}}})).prompt == '{"a": ["red", 1]}'
    with pytest.raises(ReadError, match="nor what another program says"):
        read_any(save(path, {"parameters": "[" * 100_000, "prompt": "[" * 100_000, "workflow": "{}"}))


def test_a_models_hash_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    hashes = {"31e35c80fc": A1111, "aeb7e9e689": FOOOCUS, "0x31e35c80fc": SWARM}
    for wanted, text in hashes.items():
        assert described(save(path, {"parameters": text})).fields["model_hash"] == wanted
    fields = described(save(path, {"invokeai_metadata": INVOKE})).fields
    assert (fields["model"], fields["model_hash"]) == ("dreamshaper", "blake3:abc")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
KEYWORDS = ["parameters", "prompt", "workflow", "invokeai_metadata", "sd-metadata", "Dream", "Comment", "Description"]


@given(st.data())
def test_no_value_of_a_stranger_is_a_traceback(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    content = data.draw(st.sampled_from([FOOOCUS, INVOKE, SWARM, SWARM["sui_image_params"], EASY, COMFY, DRAW_THINGS]))
    assert isinstance(content, dict)
    changed = content | {data.draw(st.sampled_from(sorted(content))): data.draw(VALUES)}
    keyword = data.draw(st.sampled_from(KEYWORDS))
    path = save(tmp_path_factory.getbasetemp() / "strange.png", {keyword: changed, "workflow": data.draw(VALUES)})
    try:
        described(path)
    except ReadError as error:
        assert "\n" not in str(error)
