"""The A1111 infotext: prompt, negative prompt and one line of settings, as most tools read it.

A view for other programs, never parsed back by us: the grammar loses blanks at the ends of lines and breaks
on prompts that look like it. So such prompts are neutralised here, and the record keeps the true text.

Grammar and readers: AUTOMATIC1111/stable-diffusion-webui `modules/infotext_utils.py`, vladmandic/sdnext
`modules/infotext.py`, civitai/civitai `src/utils/metadata/automatic.metadata.ts`, d3x-at/sd-parsers 0.6.
"""

from __future__ import annotations

import json
import re

from pipeline.metadata.record import LoraRecord, Record

# sd-parsers fails on a second "Negative prompt:" anywhere, Civitai takes the first "Steps: " for the
# settings, and SD.Next looks for the other keys, in any case, anywhere in the text.
_READ_AS_SETTINGS = re.compile(
    r"(negative prompt|steps)(?=:)|(seed|size|width|sampler|cfg scale|pipeline)(?=:\s)", re.IGNORECASE
)
_NOT_IN_NAMES = re.compile(r'[,:"\s\x00-\x1f\x7f]+')
_NOT_IN_TAGS = re.compile(r"[^A-Za-z0-9_.\-]+")
_SCHEDULE_TYPES = (" Karras", " Exponential")


def to_infotext(record: Record, *, include_prompt: bool = True, prompt_limit: int | None = None) -> str:
    """Prompt, `Negative prompt:` (always there: ComfyUI needs it), and the settings on one last line.

    Without `include_prompt` both prompts are left empty. `prompt_limit` cuts each to so many characters, for
    containers that cannot hold more.
    """
    prompt = negative_prompt = ""
    if include_prompt:
        prompt = readable(record.prompt, prompt_limit)
        negative_prompt = readable(record.negative_prompt, prompt_limit)
        # diffusers does not parse these tags, so they belong to the view alone; Civitai reads LoRA weights
        # from them.
        prompt = " ".join([prompt, *map(_lora_tag, record.loras)]).strip(" ")
    return f"{_neutral(prompt)}\nNegative prompt: {_neutral(negative_prompt)}\n{_settings_line(record)}"


def readable(text: str, limit: int | None = None) -> str:
    """The text with LF line ends, cut to `limit` characters with an ellipsis."""
    plain = text.replace("\r\n", "\n").replace("\r", "\n")
    if limit is None or len(plain) <= limit:
        return plain
    return plain[: max(limit - 1, 0)] + "…"


def plain_name(name: str) -> str:
    """A name without the marks that divide settings: every reader splits at one of `,`, `:` and `"`."""
    return _NOT_IN_NAMES.sub(" ", name).strip()


def sampler_and_schedule(scheduler: str) -> tuple[str, str | None]:
    """`DPM++ 2M Karras` -> (`DPM++ 2M`, `Karras`), the way A1111 has written it since 1.9."""
    for ending in _SCHEDULE_TYPES:
        if scheduler.endswith(ending):
            return scheduler.removesuffix(ending), ending.strip()
    return scheduler, None


def plain_number(value: float) -> str:
    """`7` for 7.0 and `7.5` for 7.5, without losing digits."""
    return str(int(value)) if value == int(value) else repr(value)


def _settings_line(record: Record) -> str:
    """`Key: value` pairs; keys hold word characters and blanks only. `Hashes` must be last: A1111 misreads
    what follows. `Model hash` is ten digits of one file's SHA-256, so a folder has none.
    """
    model = record.model
    model_hash = model.sha256[:10] if model.single_file else None
    sampler, schedule_type = sampler_and_schedule(record.scheduler.name)
    pairs: list[tuple[str, str | None]] = [
        ("Steps", str(record.steps)),
        ("Sampler", plain_name(sampler)),
        ("Schedule type", schedule_type),
        ("CFG scale", plain_number(record.guidance_scale)),
        ("Seed", str(record.seed)),
        ("Size", f"{record.width}x{record.height}"),
        ("Model hash", model_hash),
        ("Model", plain_name(model.name)),
        ("VAE", plain_name(record.vae.name) if record.vae else None),
        ("Denoising strength", plain_number(record.init.strength) if record.init else None),
        ("Clip skip", _clip_skip(record.clip_skip)),
        ("RNG", "CPU"),
        ("Version", f"{record.generator.name} {plain_name(record.generator.version)}"),
        ("Hashes", _hashes(model_hash, record.loras)),
    ]
    return ", ".join(f"{key}: {value}" for key, value in pairs if value)


def _clip_skip(clip_skip: int | None) -> str | None:
    """A1111 counts the last layer as 1 and diffusers as 0, so the numbers differ by one."""
    return str(clip_skip + 1) if clip_skip else None


def _hashes(model_hash: str | None, loras: list[LoraRecord]) -> str | None:
    """Civitai's list of resources: ten digits of the file's SHA-256, which it knows as AutoV2."""
    hashes = {"model": model_hash} if model_hash else {}
    hashes |= {f"lora:{_tag_name(lora.name)}": lora.sha256[:10] for lora in loras}
    return json.dumps(hashes) if hashes else None


def _lora_tag(lora: LoraRecord) -> str:
    return f"<lora:{_tag_name(lora.name)}:{plain_number(lora.weight)}>"


def _tag_name(name: str) -> str:
    return _NOT_IN_TAGS.sub("_", name)


def _neutral(text: str) -> str:
    """A blank before the colon of everything that a reader would take for a setting."""
    return _READ_AS_SETTINGS.sub(lambda match: match[0] + " ", text)
