"""Expands a batch configuration to jobs: prompts x variants x grid x seeds, nested in that order, created on demand.

Pure: what a configuration expands to depends on nothing but the configuration, its prompts and its wildcards.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from jobs.config.batch_config import BatchConfig
from jobs.config.faults import first_faults
from jobs.config.sections import Sampling
from jobs.config.values import MAX_GRID
from jobs.job import Job
from jobs.planning.grid import Combination, Grid
from jobs.prompts.lines import UNSET, ChosenLines, PromptLine, PromptSource, clean
from jobs.prompts.templates import Texts, Wildcards, texts_of
from pipeline.errors import ConfigError
from pipeline.metadata.leaks import refusal
from pipeline.request import NO_ADAPTERS, Adapters, ImageRequest, Likeness, MemorySettings, ModelSettings
from pipeline.request_id import hash_model, hash_prompt, hash_sampling, hash_seed

if TYPE_CHECKING:
    from hashlib import _Hash

    from jobs.planning.resolve_adapters import AdapterSource
    from jobs.planning.tagged_loras import TaggedLoras
    from pipeline.adapters.specs import LoraSpec
    from pipeline.prompting.characters import Characters

MAX_KEPT_COMBINATIONS = 4096
"""Combinations of a grid that are kept ready; those of greater ones are made anew for every prompt."""


@dataclass(slots=True)
class _Row:
    """Jobs that differ in their seed alone."""

    line: PromptLine
    prompt_index: int
    prompt: str
    template: str | None
    negative_prompt: str
    tags: tuple[str, ...] | None
    likeness: Likeness
    adapters: Adapters
    seeds: Sequence[int]
    hash: _Hash


class Expansion:
    """The jobs of one configuration, in a fixed order: `len`, iteration and `job(index)` agree.

    A prompt's own values win over the grid's, the grid's over `sampling`, that over the model's own,
    and these over `fallback`, which has every value but perhaps `clip_skip`. Raises `ConfigError` with all
    faults: grid, templates, unknown wildcards, more than 10,000,000 jobs. `place_of_lines` is what messages call
    `prompts.lines`; None names the prompt set.
    """

    def __init__(
        self,
        config: BatchConfig,
        config_index: int,
        prompts: PromptSource,
        wildcards: Wildcards,
        model: ModelSettings,
        memory: MemorySettings,
        fallback: Sampling,
        adapters: AdapterSource | None = None,
        place_of_lines: str | None = None,
        tagged: TaggedLoras | None = None,
    ) -> None:
        """`tagged` looks up the LoRAs that prompts name by tags; without it these are text."""
        self._adapters, self._tagged = adapters, tagged
        self._config, self._config_index = config, config_index
        self._prompts, self._wildcards = prompts, wildcards
        self._model, self._memory = model, memory
        self._hash_prompt = lru_cache(maxsize=64)(partial(hash_prompt, hash_model(model, memory)))
        self._weaker = config.model.sampling.over(fallback)
        self._base = config.sampling.over(self._weaker).model_dump()
        self._base_of_choice = lru_cache(maxsize=1024)(self._chosen_base)
        self._set_name = config.prompts.name or config.title
        self._place_of_lines = place_of_lines or self._set_name
        self._negative_prompt = clean(config.prompts.negative_prompt)
        faults: list[str] = []
        try:
            self._grid = Grid(config.grid)
        except ConfigError as error:
            faults.extend(error.faults)
            self._grid = Grid(None)
        # A text that the grid varies is added afterwards, so that a prompt's variants are the same with each
        # of them.
        self._prefix = "" if self._grid.varies("prompts.prefix") else clean(config.prompts.prefix)
        self._suffix = "" if self._grid.varies("prompts.suffix") else clean(config.prompts.suffix)
        self._seeds: Sequence[int] = (0,) if self._grid.varies("seed") else config.seeds
        self._ends = array("Q")
        self._count_jobs(faults)
        self._check_grid_texts(faults)
        self._check_adapters(faults)
        if faults:
            raise ConfigError(first_faults(faults))
        self._kept = list(self._combinations()) if len(self._grid) <= MAX_KEPT_COMBINATIONS else None
        self._last: tuple[int, PromptLine, Texts] | None = None
        self._last_refusal: tuple[str | None, str | None] = None, None

    def __len__(self) -> int:
        return self._ends[-1]

    def __iter__(self) -> Iterator[Job]:
        for row in self._rows():
            for seed in row.seeds:
                yield self._job(row, seed)

    def iter_keys(self) -> Iterator[tuple[bytes, Likeness, Adapters, str | None]]:
        """For every job in order, without creating the jobs: the id (32 bytes), the sampling, the adapters, and why no
        image may contain its texts (None if it may).
        """
        for row in self._rows():
            row_hash, likeness, adapters, refused = row.hash, row.likeness, row.adapters, self._refusal(row)
            for seed in row.seeds:
                yield hash_seed(row_hash, seed), likeness, adapters, refused

    def job(self, index: int) -> Job:
        """The job with this number, counted from 0. Raises IndexError for others."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        place = bisect_right(self._ends, index)
        index -= self._ends[place - 1] if place else 0
        line, texts = self._line(place)
        index, seed = divmod(index, len(self._seeds_of(line)))
        text, point = divmod(index, len(self._grid))
        combination = self._grid[point]
        row = self._row(line, place, texts, texts[text], combination, self._likeness(line, combination))
        return self._job(row, row.seeds[seed])

    @property
    def characters(self) -> tuple[str, Characters] | None:
        """The name of the prompt set and what it shows, where it is made of characters."""
        if self._config.prompts.characters is None:
            return None
        from jobs.prompts.characters import CharacterLines  # loaded already where there are any

        prompts = self._prompts.origin if isinstance(self._prompts, ChosenLines) else self._prompts
        return (self._set_name, prompts.made) if isinstance(prompts, CharacterLines) else None

    def _rows(self) -> Iterator[_Row]:
        for index, line in enumerate(self._prompts):
            texts = self._texts(line)
            for text in texts:
                for combination, likeness in self._kept or self._combinations():
                    if line.sampling is not UNSET or line.choice:
                        likeness = self._likeness(line, combination)
                    yield self._row(line, index, texts, text, combination, likeness)

    def _combinations(self) -> Iterator[tuple[Combination, Likeness]]:
        for combination in self._grid:
            yield combination, self._likeness(None, combination)

    def _row(
        self,
        line: PromptLine,
        index: int,
        texts: Texts,
        text: str,
        combination: Combination,
        likeness: Likeness,
    ) -> _Row:
        template = None if isinstance(texts, tuple) else texts.template
        loras: tuple[LoraSpec, ...] = ()
        if line.choice:
            index, template, loras = line.choice.index, line.choice.template, line.choice.loras
        if self._tagged and self._adapters is not None and "<" in text:
            tagged_text = text
            text, named = self._tagged.applied(text)
            template = template or (tagged_text if text != tagged_text else None)
            loras = (*loras, *named)
        prefix, suffix = combination.prefix, combination.suffix
        if prefix or suffix:
            text = f"{prefix or ''}{text}{suffix or ''}"
            template = template and f"{prefix or ''}{template}{suffix or ''}"
        negative_prompt = line.negative_prompt
        if negative_prompt is None:
            negative_prompt = combination.negative_prompt
        if negative_prompt is None:
            negative_prompt = self._negative_prompt
        seeds = (combination.seed,) if combination.seed is not None and not line.seeds else self._seeds_of(line)
        adapters = NO_ADAPTERS
        if self._adapters is not None:
            adapters = self._adapters.get(combination.adapters, loras)
        row_hash = hash_sampling(self._hash_prompt(text, negative_prompt), likeness, adapters)
        return _Row(line, index, text, template, negative_prompt, combination.tags, likeness, adapters, seeds, row_hash)

    def _job(self, row: _Row, seed: int) -> Job:
        line = row.line
        request = ImageRequest(
            prompt=row.prompt,
            negative_prompt=row.negative_prompt,
            seed=seed,
            model=self._model,
            memory=self._memory,
            adapters=row.adapters,
            **row.likeness._asdict(),
        )
        of_file = self._config.prompts.file is not None
        return Job(
            id=hash_seed(row.hash, seed).hex(),
            request=request,
            config_index=self._config_index,
            name=line.name or self._config.title,
            prompt_set=self._set_name,
            prompt_index=row.prompt_index,
            prompt_template=row.template,
            tags=self._tags(row),
            selection=row.line.choice.selection if row.line.choice else None,
            derived_from=line.derived_from,
            prompt_place=line.where if of_file else f"prompt {row.prompt_index + 1} of {self._place_of_lines}",
        )

    def _refusal(self, row: _Row) -> str | None:
        name = row.line.name or self._config.title
        if self._last_refusal[0] != name:  # mostly the same for all rows
            self._last_refusal = name, refusal((name, self._set_name, self._model.name))
        adapters = () if row.adapters is NO_ADAPTERS else row.adapters.names()
        texts = (row.prompt, row.negative_prompt, row.template or "", *adapters, *self._tags(row))
        return self._last_refusal[1] or refusal(texts)

    def _tags(self, row: _Row) -> tuple[str, ...]:
        set_tags = self._config.prompts.tags if row.tags is None else row.tags
        return tuple(dict.fromkeys((*set_tags, *row.line.tags)))

    def _chosen_base(self, chosen: Sampling) -> dict[str, Any]:
        return self._config.sampling.over(chosen).over(self._weaker).model_dump()

    def _likeness(self, line: PromptLine | None, combination: Combination) -> Likeness:
        """The sampling of a prompt at one point of the grid; None stands for any that says nothing of it."""
        base, own = self._base, UNSET if line is None else line.sampling
        if line and line.choice:
            base = self._base_of_choice(line.choice.sampling)
        values = base if not combination.sampling else {**base, **combination.sampling}
        if own is not UNSET:
            values = {key: value if (mine := getattr(own, key)) is None else mine for key, value in values.items()}
        options = values.get("scheduler_options") or {}
        return Likeness(**{**values, "scheduler_options": tuple(sorted(options.items()))})

    def _seeds_of(self, line: PromptLine) -> Sequence[int]:
        return line.seeds or self._seeds

    def _texts(self, line: PromptLine) -> Texts:
        if line.choice:
            return (line.text,)
        return texts_of(f"{self._prefix}{line.text}{self._suffix}", self._config.prompts.variants, self._wildcards)

    def _line(self, place: int) -> tuple[PromptLine, Texts]:
        """A line and its texts; the last one asked for is kept, since jobs are mostly asked for in order."""
        if self._last is None or self._last[0] != place:
            line = self._prompts[place]
            self._last = (place, line, self._texts(line))
        return self._last[1], self._last[2]

    def _count_jobs(self, faults: list[str]) -> None:
        """Fill in where each line's jobs end, parsing every template once."""
        total = 0
        for line in self._prompts:
            try:
                texts = self._texts(line)
            except ConfigError as error:
                faults.extend(fault for fault in error.faults if fault not in faults)
            except ValueError as error:
                faults.append(f"{line.where}: {error}")
            else:
                total += len(texts) * len(self._grid) * len(self._seeds_of(line))
            self._ends.append(total)
        if total > MAX_GRID:
            faults.append(f"{total:,} jobs, more than {MAX_GRID:,}; use fewer prompts, variants, seeds or grid values")

    def _check_adapters(self, faults: list[str]) -> None:
        """Find, check and hash every adapter and picture of the grid now, not when its turn comes at night."""
        if self._adapters is None:
            return
        for values in self._grid.adapter_combinations():
            try:
                self._adapters.get(values)
            except ConfigError as error:
                faults.extend(fault for fault in error.faults if fault not in faults)

    def _check_grid_texts(self, faults: list[str]) -> None:
        """A grid lists its texts one by one; `{a|b}` in one of them would be a second grid within it."""
        for key in ("prompts.prefix", "prompts.suffix"):
            for place, text in enumerate(self._grid.values(key)):
                try:
                    plain = self._wildcards.parse(text) == text
                except (ConfigError, ValueError):
                    plain = False
                if not plain:
                    faults.append(f"grid.{key}[{place}]: takes no {{a|b}} or __wildcard__; list the texts one by one")
