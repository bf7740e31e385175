"""The texts of a template such as `{red|blue} house`: random ones, all combinations, or cyclic.

It is a tree of strings, `Template` and `Alternatives`, made by `jobs.prompts.templates`. Grammar and meaning are those
of `dynamicprompts`, whose sampler makes the random draws. Two things are done here on the tree, because the
library can only do them by generating everything: count the combinations, and give the n-th one.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import accumulate
from random import Random
from typing import TYPE_CHECKING, TypeAlias, overload

from jobs.config.sections import Variants
from jobs.config.values import MAX_GRID

if TYPE_CHECKING:
    from dynamicprompts.commands import Command
    from dynamicprompts.sampling_context import SamplingContext


@dataclass(frozen=True)
class Template:
    """Text pieces and choices, one after the other."""

    nodes: tuple[Node, ...]

    @cached_property
    def count(self) -> int:
        """How many combinations there are."""
        return math.prod(count_of(node) for node in self.nodes)

    def text_at(self, index: int) -> str:
        """The combination with this number; the last part changes fastest."""
        return "".join(_texts_at(self.nodes, index))

    @cached_property
    def command(self) -> Command:
        """This node as a dynamicprompts command."""
        from dynamicprompts.commands import SequenceCommand

        return SequenceCommand([command_of(node) for node in self.nodes])


@dataclass(frozen=True)
class Alternatives:
    """From `least` to `most` different options, joined by the separator. Only random mode uses `weights`."""

    options: tuple[Node, ...]
    weights: tuple[float, ...]
    least: int = 1
    most: int = 1
    separator: str = ","

    @cached_property
    def count(self) -> int:
        """How many combinations there are; the order of several options counts, as in dynamicprompts."""
        counts = [count_of(option) for option in self.options]
        return sum(_arrangements(counts, size) for size in range(self.least, self.most + 1))

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(count_of(option) for option in self.options))

    def text_at(self, index: int) -> str:
        """The combination with this number: fewer options before more, then by the options' order."""
        if self.least == self.most == 1:
            place = bisect_right(self._ends, index)
            option = self.options[place]
            return text_at(option, index - self._ends[place] + count_of(option))
        options = list(self.options)
        for size in range(self.least, self.most + 1):
            total = _arrangements([count_of(option) for option in options], size)
            if index < total:
                return self._joined(options, size, index)
            index -= total
        raise IndexError(index)

    def _joined(self, options: list[Node], size: int, index: int) -> str:
        chosen: list[Node] = []
        above = 1  # combinations within the options chosen so far
        while len(chosen) < size:
            for place, option in enumerate(options):
                rest = options[:place] + options[place + 1 :]
                block = (
                    above
                    * count_of(option)
                    * _arrangements([count_of(other) for other in rest], size - len(chosen) - 1)
                )
                if index < block:
                    break
                index -= block
            chosen.append(option)
            above *= count_of(option)
            options = rest
        joined = self.separator.join(_texts_at(chosen, index))
        # An empty option leaves no separator at the ends, as in dynamicprompts.
        return joined.removeprefix(self.separator).removesuffix(self.separator) if size > 1 else joined

    @cached_property
    def command(self) -> Command:
        """This node as a dynamicprompts command."""
        from dynamicprompts.commands import VariantCommand, VariantOption

        pairs = zip(self.options, self.weights, strict=True)
        options = [VariantOption(command_of(option), weight) for option, weight in pairs]
        return VariantCommand(options, self.least, self.most, self.separator)


Node: TypeAlias = "str | Template | Alternatives"


def count_of(node: Node) -> int:
    """How many texts a node can produce; equal texts are counted as often as they occur."""
    return 1 if isinstance(node, str) else node.count


def text_at(node: Node, index: int) -> str:
    """The text with this number, from 0 to `count_of(node) - 1`."""
    return node if isinstance(node, str) else node.text_at(index)


def _texts_at(nodes: Sequence[Node], index: int) -> list[str]:
    """A text of each node, for the combination of them with this number; the last one changes fastest."""
    texts = []
    for node in reversed(nodes):
        index, own = divmod(index, count_of(node))
        texts.append(text_at(node, own))
    return texts[::-1]


def command_of(node: Node) -> Command:
    """A node as a dynamicprompts command."""
    if isinstance(node, str):
        from dynamicprompts.commands import LiteralCommand

        return LiteralCommand(node)
    return node.command


def _arrangements(counts: Sequence[int], size: int) -> int:
    """How many ordered selections of `size` options there are, where each option has its own number of texts.

    It is size! times the elementary symmetric polynomial of the counts.
    """
    sums = [1] + [0] * size
    for count in counts:
        for degree in range(size, 0, -1):
            sums[degree] += count * sums[degree - 1]
    return math.factorial(size) * sums[size]


class VariantTexts(Sequence[str]):
    """The texts of one template under the set's `variants:` settings, each created on demand.

    A random text is decided by `prompt_seed`, the template itself and its number alone: other prompts, their
    order and a greater `count` change nothing. Raises ValueError for more than `MAX_GRID` combinations.
    """

    def __init__(self, template: str, node: Node, settings: Variants) -> None:
        self.template = template
        self._node, self._settings = node, settings
        combinations = count_of(node)
        if isinstance(node, str):
            self._count = 1
        elif settings.mode == "combinatorial":
            self._count = min(combinations, settings.count or combinations)
        else:
            self._count = settings.count or 1
        if self._count > MAX_GRID:
            raise ValueError(
                f"stands for {combinations:,} combinations, more than {MAX_GRID:,}; "
                "set prompts.variants.count or use fewer options"
            )

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(self._count))]
        if not 0 <= index < self._count:
            raise IndexError(index)
        match self._settings.mode:
            case "combinatorial":
                return text_at(self._node, index)
            case "cyclic":
                return _in_step(self._node, index)
            case _:
                return self._drawn(index)

    def _drawn(self, index: int) -> str:
        if isinstance(self._node, str):
            return self._node
        key = f"{self._settings.prompt_seed}\n{index}\n{self.template}"
        seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
        context = _random_context()
        context.rand.seed(seed)
        return str(next(context.generator_from_command(command_of(self._node))))


def _in_step(node: Node, index: int) -> str:
    """Every choice in a text moves on by one at each step and starts again at its end."""
    if isinstance(node, Template):
        return "".join(_in_step(part, index) for part in node.nodes)
    return text_at(node, index % count_of(node))


@cache
def _random_context() -> SamplingContext:
    """The library's side of a draw, made once: it is reseeded for every text."""
    from dynamicprompts.enums import SamplingMethod
    from dynamicprompts.sampling_context import SamplingContext
    from dynamicprompts.wildcards import WildcardManager

    # Wildcards are resolved in the tree already, so the library's own manager stays empty.
    return SamplingContext(
        default_sampling_method=SamplingMethod.RANDOM, wildcard_manager=WildcardManager(), rand=Random()
    )
