"""Parses references to models and weights files. `pipeline.registry.resolve` resolves them to paths."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pipeline.errors import ModelError
from pipeline.storage.foreign_names import fault_of_name
from pipeline.weights.headers.base import PICKLES, WEIGHTS

EMBEDDED = {"demo": Path(__file__).resolve().parent.parent / "demo"}
"""Models that are shipped with the program, by name."""

EMBEDDED_DEFAULTS = {"demo": (20, 2.0)}
"""Steps and guidance scale that suit the embedded models; the same values stand in their profiles in `conf/model`."""

Scheme = Literal["hf", "civitai", "sha256", "path", "name"]

SHORTEST_HASH = 10
"""Digits of a hash that are taken for it: those that A1111 and CivitAI show of a model (AutoV2)."""

CONFIGURATION = "model_index.json"
"""As the file of a reference: the configurations and vocabularies of a diffusers repository, without its weights."""

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_WITHOUT_OWNER = re.compile(r"[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
"""Hugging Face's oldest repositories (`gpt2`)."""

_HUGGINGFACE = re.compile(
    r"(?P<repository>[^/@]+/[^/@]+|[^/@]+(?=@|$))(?:@(?P<revision>refs/[a-z]+/\w+|[A-Za-z0-9][A-Za-z0-9_.+-]*))?(?:/(?P<file>.*))?"
)
_HASH = re.compile(rf"[0-9a-f]{{{SHORTEST_HASH},64}}")
_HASH_AS_NAME = re.compile(r"[0-9a-f]{40,64}(\.\w+)?")
"""Of what lies in the store or in Hugging Face's cache."""
_MOST_CHARACTERS = 1_000
ADDRESSES = ("http:", "https:")
SCHEMES = ("hf:", "civitai:", "sha256:")
"""How references begin that mean the same on every machine."""

_EXPECTED = "expected hf:org/name, civitai:<id>, sha256:<hash>, the path of a file or folder, or a model's name"

_HUGGINGFACE_PAGE = re.compile(
    r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/(?P<repository>[\w.-]+/(?!(?:tree|blob|resolve)/)[\w.-]+"
    r"|[\w.-]+(?=/(?:tree|blob|resolve)/))"
    r"(?:/(?:tree|blob|resolve)/(?P<revision>[\w.-]+)(?:/(?P<file>[^?#]+))?)?", re.ASCII
)  # fmt: skip
_CIVITAI_PAGE = re.compile(
    r"https?://(?:www\.)?civitai\.(?:com|red)/(?:models/(?P<model>\d+)|api/download/models/(?P<direct>\d+))"
    r"(?:\S*[?&]modelVersionId=(?P<version>\d+))?", re.ASCII
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed reference. `text` is the original text.

    Of `hf`: `repository` as `org/name`, or as `name` where it has no owner, and `revision` and `file` where they are
    given. Of `civitai`: `number`, the id of a version or of a model. Of `sha256`: the digits, at least `SHORTEST_HASH`
    of them, in small letters. A `path` need not exist, and what has the form of a plain `name` may also be a path.
    """

    text: str
    scheme: Scheme
    repository: str | None = None
    revision: str | None = None
    file: str | None = None
    number: int | None = None
    sha256: str | None = None


def parse(reference: str) -> Reference:
    """Parse a reference, without checking whether it exists.

    Raises `ModelError` for web addresses and for what begins like a reference and is none.
    """
    text = reference.strip()
    if not text or len(text) > _MOST_CHARACTERS or not text.isprintable():
        raise ModelError(f"{_shown(reference)}: is no reference; {_EXPECTED}")
    scheme, _, rest = text.partition(":")
    match scheme:
        case "hf":
            return _huggingface(text, rest)
        case "civitai":
            if not (rest.isascii() and rest.isdecimal() and len(rest) <= 18 and int(rest)):
                raise ModelError(f"{_shown(text)}: expected civitai:<id>, the number of a version or of a model")
            return Reference(text, "civitai", number=int(rest))
        case "sha256":
            if not _HASH.fullmatch(rest.lower()):
                raise ModelError(f"{_shown(text)}: expected sha256: and {SHORTEST_HASH} to 64 digits from 0-9 and a-f")
            return Reference(text, "sha256", sha256=rest.lower())
    if text.lower().startswith(ADDRESSES):
        raise ModelError(f"{_shown(text)}: web addresses are not taken; {_instead_of(text)}")
    return Reference(text, "path" if _is_path(text) else "name")


def asked_for(reference: Reference, noun: str) -> Reference:
    """The reference that must be fetched: for a `model.config` a repository without its weights."""
    if noun != "model.config" or reference.scheme != "hf" or reference.file:
        return reference
    return replace(reference, text=f"{reference.text}/{CONFIGURATION}", file=CONFIGURATION)


@contextmanager
def called(reference: str, path: Path) -> Iterator[None]:
    """Within this block, a `ModelError` about the file at `path` calls it `reference`, if its name is only a hash."""
    try:
        yield
    except ModelError as error:
        if not _HASH_AS_NAME.fullmatch(path.name) or path.name in reference:
            raise
        raise ModelError(str(error).replace(path.name, reference)) from None


def _huggingface(text: str, rest: str) -> Reference:
    known = _HUGGINGFACE.fullmatch(rest)
    name = known["repository"] if known else ""
    if not known or ".." in name or not (REPOSITORY.fullmatch(name) or _WITHOUT_OWNER.fullmatch(name)):
        raise ModelError(
            f"{_shown(text)}: expected hf:org/name, hf:org/name@revision or hf:org/name@revision/file (without org/ "
            "where a repository has no owner)"
        )
    if known["file"] is not None and (fault := fault_of_name(known["file"])):
        raise ModelError(f"{_shown(text)}: the file's name {fault}")
    return Reference(text, "hf", known["repository"], known["revision"], known["file"])


def _is_path(text: str) -> bool:
    """Whether this can only be a path: it begins like one, or has more parts than a name."""
    if text.startswith((".", "/", "~", "\\")) or "\\" in text or text.endswith("/") or re.match(r"[A-Za-z]:", text):
        return True
    return text.count("/") > 1 or ("/" in text and Path(text).suffix.lower() in (*WEIGHTS, *PICKLES))


def _instead_of(address: str) -> str:
    """What to write for the page of a model on a hub."""
    if known := _HUGGINGFACE_PAGE.match(address):
        parts = (f"@{known['revision']}" if known["revision"] else "", f"/{known['file']}" if known["file"] else "")
        return f"write hf:{known['repository']}{''.join(parts)}"
    if known := _CIVITAI_PAGE.match(address):
        return f"write civitai:{known['version'] or known['direct'] or known['model']}"
    return _EXPECTED


def _shown(text: str) -> str:
    return repr(text if len(text) <= 200 else f"{text[:200]}...")
