"""From what a user writes to a file or folder on this machine."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pipeline.errors import ModelError
from pipeline.storage.foreign_names import fault_of_name
from pipeline.weights.headers.weights_header import PICKLES, WEIGHTS

EMBEDDED = {"demo": Path(__file__).resolve().parent.parent / "demo"}
"""Models that are shipped with the program, by name."""

EMBEDDED_DEFAULTS = {"demo": (20, 2.0)}
"""Steps and guidance scale that suit the embedded models; the same values stand in their profiles in `conf/model`."""

Scheme = Literal["hf", "civitai", "sha256", "path", "name"]

SHORTEST_HASH = 10
"""Digits of a hash that are taken for it: those that A1111 and CivitAI show of a model (AutoV2)."""

CONFIGURATION = "model_index.json"
"""As the file of a reference: the configurations and vocabularies of a diffusers repository, without its weights."""

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_WITHOUT_OWNER = re.compile(r"[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
"""Hugging Face's oldest repositories (`gpt2`)."""

_HUGGINGFACE = re.compile(
    r"(?P<repository>[^/@]+/[^/@]+|[^/@]+(?=@|$))(?:@(?P<revision>refs/[a-z]+/\w+|[A-Za-z0-9][A-Za-z0-9_.+-]*))?(?:/(?P<file>.*))?"
)
_HASH = re.compile(rf"[0-9a-f]{{{SHORTEST_HASH},64}}")
_HASH_AS_NAME = re.compile(r"[0-9a-f]{40,64}(\.\w+)?")
"""Of what lies in the store or in Hugging Face's cache."""
_MOST_CHARACTERS = 1_000
_ADDRESS = ("http:", "https:")
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
    """A reference, taken apart. `text` is what was written.

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
    """Take a reference apart, without looking whether there is such a thing.

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
    if text.lower().startswith(_ADDRESS):
        raise ModelError(f"{_shown(text)}: web addresses are not taken; {_instead_of(text)}")
    return Reference(text, "path" if _is_path(text) else "name")


def asked_for(reference: Reference, noun: str) -> Reference:
    """What is fetched where a reference stands: for a `model.config` a repository without its weights."""
    if noun != "model.config" or reference.scheme != "hf" or reference.file:
        return reference
    return replace(reference, text=f"{reference.text}/{CONFIGURATION}", file=CONFIGURATION)


def resolve(reference: str, noun: str = "model") -> Path:
    """The local file or folder that a reference means, without asking anybody else.

    That is an embedded model's name, a path (`~` is understood), or what the registry knows by a hub's reference, a
    hash or a name. What was fetched is checked to be as it was. `noun` says in messages what was looked for; embedded
    names count for models only, and pictures (`image`) are found by path alone. Raises `ModelError` for what is not
    there, in one line that says what to do.
    """
    if noun == "model" and reference in EMBEDDED:
        return EMBEDDED[reference]
    if not reference.startswith((*SCHEMES, *_ADDRESS)) and (path := _existing(reference)):
        return path
    if noun == "image":
        raise ModelError(f"image {reference!r}: no such file (looked in {Path.cwd()})")
    try:
        parsed = parse(reference)
    except ModelError as error:
        raise ModelError(f"{noun} {error}") from None
    if parsed.scheme == "path":
        raise _not_here(parsed, noun)
    from pipeline.registry.database import RegistryError
    from pipeline.registry.resolve import find_place

    try:
        place = find_place(parsed, noun)
    except RegistryError as error:
        if parsed.scheme != "name":
            raise
        raise ModelError(f"{_not_here(parsed, noun)}; the registry was not asked: {error}") from None
    if place is None:
        raise _not_here(parsed, noun)
    return place


def is_remote(reference: str, noun: str = "model") -> bool:
    """Whether a reference names weights on another machine (`hf:org/name`, `civitai:123`) that are not on this one.

    `noun` is as in `resolve`. False for what is no reference: `resolve` says what is wrong with it. Raises `ModelError`
    if the registry cannot be read.
    """
    if not reference.startswith(SCHEMES):
        return False
    try:
        parsed = parse(reference)
    except ModelError:
        return False
    from pipeline.registry.resolve import is_known

    return not is_known(asked_for(parsed, noun))


def name_of(reference: str, path: Path) -> str:
    """How what `resolve` found at `path` is called: a path by its file or folder, else as the registry calls it.

    What lies in a hub's cache or in the store has a hash for a name. Raises `ModelError` if the registry cannot be
    read.
    """
    if reference in EMBEDDED:
        return reference
    named = Path(reference)
    if not _existing(reference):
        from pipeline.registry.resolve import name_at

        if known := name_at(path):
            return known
        named = path
    return named.stem if path.is_file() else named.name or path.name


@contextmanager
def called(reference: str, path: Path) -> Iterator[None]:
    """Let a `ModelError` about what lies at `path` call it as the user did, where its name is but a hash."""
    try:
        yield
    except ModelError as error:
        if not _HASH_AS_NAME.fullmatch(path.name) or path.name in reference:
            raise
        raise ModelError(str(error).replace(path.name, reference)) from None


def _existing(reference: str) -> Path | None:
    """The file or folder at a path, if there is one; a file by the name it was asked for.

    In Hugging Face's cache files are links to nameless content, and it is the name that says what they are.
    """
    try:
        path = Path(reference).expanduser()
        if not reference.strip() or not path.exists():
            return None
        return path.parent.resolve() / path.name if path.is_file() else path.resolve()
    except (OSError, ValueError, RuntimeError):  # a name too long, with a null character, a home that is none
        return None


def _not_here(reference: Reference, noun: str) -> ModelError:
    text = reference.text
    fetched_with = f"darkroom models download {shlex.quote(asked_for(reference, noun).text)}"
    if reference.scheme in ("hf", "civitai"):
        return ModelError(
            f"{noun} {text!r}: not on this machine; fetch it with: {fetched_with} (with hub.auto_download=true a run "
            "does so itself)"
        )
    if reference.scheme == "sha256":
        whole = f", or ask CivitAI for it with: {fetched_with}" if len(reference.sha256 or "") == 64 else ""
        return ModelError(
            f"{noun} {text!r}: nothing on this machine is known to have this hash; take its folder in with: "
            f"darkroom models scan FOLDER, and have what is new hashed with: darkroom models verify{whole}"
        )
    if _REPOSITORY.fullmatch(text):
        hub = f"; for the repository on Hugging Face write hf:{text}"
    else:
        hub = f"; fetch what is called so with: {fetched_with}" if reference.scheme == "name" else ""
    looked = f"{noun} {text!r}: no such {'folder or file' if noun == 'model' else 'file'} (looked in {Path.cwd()})"
    named = ", and `darkroom models list` shows no such name" if reference.scheme == "name" else ""
    if noun != "model":
        return ModelError(f"{looked}{named}{hub}")
    return ModelError(
        f"{looked}{named}; expected a diffusers folder with a model_index.json, a .safetensors or .gguf file, or one "
        f"of the embedded models: {', '.join(EMBEDDED)}{hub}"
    )


def _huggingface(text: str, rest: str) -> Reference:
    known = _HUGGINGFACE.fullmatch(rest)
    name = known["repository"] if known else ""
    if not known or ".." in name or not (_REPOSITORY.fullmatch(name) or _WITHOUT_OWNER.fullmatch(name)):
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
