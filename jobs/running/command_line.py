"""The command of a run as it is stored: given again, it makes the rest, and it contains no private data."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.config.batch_config import SECRET_KEYS
from jobs.config.program_name import REMOVED, program_name
from pipeline.metadata.leaks import scrub

PATH_KEYS = ("source", "vae", "config", "tiny_vae", "encoder", "image", "file", "dir")
"""The last parts of the keys whose values are paths."""

_FOLDER_OPTIONS = ("--config-dir", "-cd")
_PROMPT_KEYS = ("prompt", "prompts")
_OVERRIDE = re.compile(r"([+~]*)([A-Za-z_][\w./@:-]*)=(.*)", re.DOTALL)
_PATH = re.compile(r"(?<![^=,\[\s'\"(:])/[^,\]\)}'\"]*")
_PATH_WITHIN = re.compile(rf"((?<![\w.])(?:[\w]+\.)*(?:{'|'.join(PATH_KEYS)})\s*:\s*['\"\[]*)(/[^,\]}}'\"]*)")


@dataclass(frozen=True, slots=True)
class KeptCommand:
    """A command line to be pasted into a shell, in the folder where it was first given.

    Not `complete` where something stood in it that is not kept: a key, another user's folder, how a hub is reached.
    """

    text: str
    complete: bool


def kept_command(arguments: Sequence[str], *, prompts: bool = True) -> KeptCommand:
    """The command of these arguments; absolute paths are made relative to the working folder.

    Without `prompts`, what stands in those on the command line is not kept either.
    """
    words = list(arguments)
    kept = [_kept(word, words[index - 1] if index else "", prompts=prompts) for index, word in enumerate(words)]
    complete = all(scrub(word) == word for word in kept) and REMOVED not in "".join(kept)
    return KeptCommand(" ".join((program_name(), *(shlex.quote(scrub(word)) for word in kept))), complete)


def _kept(word: str, before: str, *, prompts: bool) -> str:
    if before in _FOLDER_OPTIONS:
        return _from_here(word)
    option, equals, value = word.partition("=")
    if option in _FOLDER_OPTIONS and equals:
        return f"{option}={_from_here(value)}"
    match = _OVERRIDE.fullmatch(word)
    if match is None:
        return word
    signs, key, value = match.groups()
    group = key.partition(".")[0]
    hides_prompts = not prompts and group in _PROMPT_KEYS and (key != "prompts" or "{" in value)
    if key in SECRET_KEYS or (key == "hub" and "{" in value) or (hides_prompts and key != "prompts.file"):
        return f"{signs}{key}={REMOVED}"
    if key.rpartition(".")[2] in PATH_KEYS:
        return f"{signs}{key}={_PATH.sub(lambda path: _from_here(path[0]), value)}"
    return f"{signs}{key}={_PATH_WITHIN.sub(lambda path: path[1] + _from_here(path[2]), value)}"


def _from_here(path: str) -> str:
    """A path as the working folder sees it; one that leads through a user's folder stays as it is, to be scrubbed."""
    if not Path(path).is_absolute():
        return path
    relative = os.path.relpath(path)
    from_root = "/" + relative.replace("../", "")  # it may climb to the root, and down from there
    return relative if scrub(from_root) == from_root else path
