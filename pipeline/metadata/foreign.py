"""What other programs write into their images: A1111 and its kin, ComfyUI, InvokeAI, Fooocus, NovelAI through
sd-parsers; SwarmUI, Easy Diffusion and Draw Things, whose settings are one mapping, here.

All of it is data from strangers: whatever a parser gives back becomes text in one place, `_text`.

Formats: mcmonkeyprojects/SwarmUI `docs/Image Metadata Format.md`; easydiffusion `ui/easydiffusion/utils/save_utils.py`;
Draw Things' XMP as read by receyuki/stable-diffusion-prompt-reader; comfyanonymous/ComfyUI `comfy_api/latest/_ui.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ReadError
from pipeline.metadata.record import Record
from pipeline.metadata.xmp import EXIF, read_property

if TYPE_CHECKING:
    from pipeline.metadata.containers import Container

_EASY_DIFFUSION = ("use_stable_diffusion_model", "Stable Diffusion model")
"""The keyword of the model, as the two ways of Easy Diffusion's to write an image have it."""

_USUAL_NAMES = {
    "negativeprompt": "negative_prompt",
    "cfgscale": "cfg_scale",
    "guidance_scale": "cfg_scale",
    "scale": "cfg_scale",
    "num_inference_steps": "steps",
    "sampler_name": "sampler",
    "use_stable_diffusion_model": "model",
    "stable_diffusion_model": "model",
    "c": "prompt",
    "uc": "negative_prompt",
}
"""The names that sd-parsers gives to settings, by those of the programs that are read here."""


@dataclass(frozen=True, slots=True)
class ImageDescription:
    """What an image says about its making. `origin` names the program; `record` is there only for our own.

    `fields` are the program's settings as text, by the names that sd-parsers or the record gives them.
    """

    origin: str
    prompt: str
    negative_prompt: str
    fields: dict[str, str] = field(default_factory=dict)
    record: Record | None = None


def describe_foreign(path: Path, container: Container) -> ImageDescription | None:
    """What another program says of an image; None where none does. Raises `ReadError` for damaged metadata."""
    texts = _texts(path, container)
    for read in (_swarmui, _easy_diffusion, _draw_things):
        if found := read(texts):
            return found
    return _through_sd_parsers(texts)


def _texts(path: Path, container: Container) -> dict[str, str]:
    """What stands in the file under the keywords of PNG text chunks, wherever the format keeps it.

    sd-parsers' own reader is not used: for JPEG it caches the last text under the image object's `id()`,
    which Python gives to another object as soon as the first is freed.
    """
    from PIL import ExifTags, Image

    texts: dict[str, str] = {}
    try:
        with Image.open(path) as image:
            if image.format == "PNG":
                image.load()  # reads the chunks after the pixels too
                texts = {str(key): value for key, value in image.info.items() if isinstance(value, str)}
            exif = image.getexif()
            inner = exif.get_ifd(ExifTags.IFD.Exif)
    except Exception as error:  # Pillow's plug-ins raise half a dozen types on damaged files
        raise ReadError(f"{path}: its metadata cannot be read ({error})") from error
    for tag in (ExifTags.Base.Make, ExifTags.Base.Model):  # ComfyUI's WebP
        keyword, _, content = str(exif.get(tag, "")).partition(":")
        if keyword in ("prompt", "workflow"):
            texts[keyword] = content
    # Fooocus puts it where cameras have their maker.
    if comment := inner.get(ExifTags.Base.UserComment) or exif.get(ExifTags.Base.UserComment):
        texts.setdefault("parameters", _user_comment(comment))
    with suppress(ReadError):  # of another program, damage there may leave the rest sound
        texts["xmp"] = read_property(container.xmp or b"", "UserComment", EXIF) or ""  # Draw Things' settings
    return texts


def _user_comment(value: Any) -> str:
    """The text of an EXIF UserComment: its first eight bytes name the encoding, but not the order of bytes."""
    if not isinstance(value, bytes):
        return str(value)
    prefix, content = value[:8], value[8:]
    if prefix.startswith(b"UNICODE"):
        big_endian = content[::2].count(0) >= content[1::2].count(0)
        return content.decode("utf-16-be" if big_endian else "utf-16-le", errors="replace").lstrip("\ufeff")
    named = prefix.startswith(b"ASCII") or not any(prefix)
    return (content if named else value).decode(errors="replace").rstrip("\x00")


def _swarmui(texts: Mapping[str, str]) -> ImageDescription | None:
    content = _mapping(texts.get("parameters"))
    settings = content.get("sui_image_params")
    if not isinstance(settings, Mapping):
        return None
    models = content.get("sui_models")
    for model in models if isinstance(models, list) else ():
        if isinstance(model, Mapping) and model.get("param") == "model":
            settings = {**settings, "model_hash": model.get("hash")}
    return _from_settings("SwarmUI", settings)


def _easy_diffusion(texts: Mapping[str, str]) -> ImageDescription | None:
    for settings in (texts, _mapping(texts.get("parameters"))):
        if any(keyword in settings for keyword in _EASY_DIFFUSION):
            return _from_settings("Easy Diffusion", settings)
    return None


def _draw_things(texts: Mapping[str, str]) -> ImageDescription | None:
    settings = _mapping(texts.get("xmp"))
    return _from_settings("Draw Things", settings) if "c" in settings else None


def _from_settings(origin: str, settings: Mapping[str, Any]) -> ImageDescription:
    fields = {}
    for name, value in settings.items():
        plain = str(name).lower().replace(" ", "_")
        fields[_USUAL_NAMES.get(plain, plain)] = _text(value)
    return ImageDescription(origin, fields.pop("prompt", ""), fields.pop("negative_prompt", ""), fields)


def _through_sd_parsers(texts: dict[str, str]) -> ImageDescription | None:
    from sd_parsers.parsers import MANAGED_PARSERS

    if "prompt" in texts:
        texts = texts | {"workflow": json.dumps({"links": list(_links(_mapping(texts["prompt"])))})}
    parsers: list[Any] = MANAGED_PARSERS  # declared as a list of the abstract base
    for parser in parsers:
        try:
            info = parser().parse(texts)
            fields = dict(_fields(info, texts))
            prompts = [_joined(prompt.value for sampler in info.samplers for prompt in sampler.prompts)]
            prompts += [_joined(prompt.value for sampler in info.samplers for prompt in sampler.negative_prompts)]
        except Exception:  # of any type: the usual answer of a parser to another program's text, or a stranger's
            continue
        prompt, negative_prompt = (
            said or _text(info.metadata.get(name))
            for said, name in zip(prompts, ("full_prompt", "full_negative_prompt"), strict=True)
        )
        return ImageDescription(info.generator.value, prompt, negative_prompt, fields)
    return None


def _links(graph: Mapping[str, Any]) -> Iterator[list[Any]]:
    """The links of a ComfyUI graph, as its workflow lists them; images made over its API have no workflow."""
    for place, node in graph.items():
        inputs = node.get("inputs") if isinstance(node, Mapping) else None
        for name, value in inputs.items() if isinstance(inputs, Mapping) else ():
            if isinstance(value, list) and len(value) == 2:
                yield [0, value[0], value[1], place, 0, str(name).upper()]


def _fields(info: Any, texts: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for sampler in info.samplers:
        yield "sampler", _text(sampler.name)
        yield from ((str(key), _text(value)) for key, value in sampler.parameters.items())
        if sampler.model is not None:
            yield "model", _text(sampler.model.name)
            yield "model_hash", _text(sampler.model.hash or sampler.model.metadata.get("hash"))
    yield from ((str(key), _text(value)) for key, value in info.metadata.items())
    # InvokeAI 4 calls a model's name otherwise than those before it, which are the ones that sd-parsers knows.
    model = _mapping(texts.get("invokeai_metadata")).get("model")
    if isinstance(model, Mapping) and "model_name" not in model:
        yield "model", _text(model.get("name"))
        yield "model_hash", _text(model.get("hash"))


def _joined(values: Iterator[Any]) -> str:
    return ", ".join(filter(None, dict.fromkeys(map(_text, values))))


def _mapping(text: str | None) -> Mapping[str, Any]:
    """A JSON object; an empty one for everything else."""
    try:
        value = json.loads(text or "")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str:
    """Anything that a parser found, as text with LF line ends; nothing becomes an empty one, what is nested JSON."""
    if value is None:
        return ""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = ", ".join(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text.encode("utf-8", "replace").decode().replace("\r\n", "\n")
