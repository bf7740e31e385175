"""Prompt sets: inline in YAML (`lines:`), in a `.txt`, `.csv` or `.jsonl` file (`file:`), or made (`characters:`).

Files are read as plain data: nothing in them is run, resolved or interpolated, so strangers' prompts may be
used.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jobs.config.faults import first_faults
from jobs.config.sections import Prompts
from jobs.prompts.files import find_prompt_file, open_prompt_file
from jobs.prompts.lines import PromptLine, PromptSource, read_line
from pipeline.errors import ConfigError


def open_prompts(settings: Prompts, search: Sequence[Path] = (), prompt: str | None = None) -> PromptSource:
    """The prompts of a set, every line checked. `prompt` is the key of that name, which messages name if it is given.

    A relative `file` is looked for in the `search` folders (where the YAML stands), then in the working
    folder. Raises `ConfigError` or `PromptFileError` with all faults (of a set with many, the first 20).
    """
    if settings.file is not None:
        return open_prompt_file(find_prompt_file(settings.file, search), settings.file)
    if settings.characters is not None:
        from jobs.prompts.characters import CharacterLines  # with its vocabularies, which other sets can do without

        return CharacterLines(settings.characters)
    faults: list[str] = []
    lines: list[PromptLine] = []
    for index, item in enumerate(settings.lines or ()):
        where = f"prompts.lines[{index}]" if prompt is None else "prompt"
        try:
            lines.append(read_line(item, where))
        except ConfigError as error:
            faults.extend(error.faults)
    if not settings.lines:
        faults.append("prompts.lines: is empty; give at least one prompt")
    if faults:
        raise ConfigError(first_faults(faults))
    return lines
