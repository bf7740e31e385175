"""The demo model's tokenizer: CLIP's layout, whole words for its vocabulary, bytes for the rest of the
world.

CLIP's tokenizer is a byte-pair encoding in which `</w>` ends a word. Merges are learnt here from the
captions' own words until each of those is one token; all 256 bytes are tokens too, so any text at all has
an encoding without unknowns. Source of the byte table: GPT-2 (Radford et al., 2019), through `tokenizers`'
`ByteLevel.alphabet()`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

MAX_TOKENS = 32
"""Longest prompt, start and end included; longer ones are cut, as CLIP's are at 77."""
START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"

Pair = tuple[str, str]


def learn_merges(words: Iterable[str]) -> list[Pair]:
    """Return the byte-pair merges, in order, after which each of `words` (ASCII) is a single token."""
    pieces = {word: [*word[:-1], word[-1] + WORD_END] for word in sorted(set(words)) if word}
    merges: list[Pair] = []
    while True:
        counts = Counter(pair for parts in pieces.values() for pair in pairwise(parts))
        if not counts:
            return merges
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        for word, parts in pieces.items():
            pieces[word] = _merged(parts, best)


def _merged(parts: list[str], pair: Pair) -> list[str]:
    """Return `parts` with each occurrence of `pair` joined, from left to right."""
    joined: list[str] = []
    for part in parts:
        if joined and (joined[-1], part) == pair:
            joined[-1] += part
        else:
            joined.append(part)
    return joined


def save_tokenizer(captions: Iterable[str], folder: Path) -> None:
    """Write a `CLIPTokenizer` for the words of `captions` to `folder`, ready for `from_pretrained`."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    words = {word for caption in captions for word in re.findall(r"[a-z]+", caption.lower())}
    merges = learn_merges(words)
    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(letter + WORD_END for letter in letters), *("".join(pair) for pair in merges)]
    vocabulary = {token: index for index, token in enumerate([*dict.fromkeys(tokens), START, END])}
    merge_list: Any = merges  # annotated as text, but pairs are what `tokenizers` takes
    tokenizer = CLIPTokenizer(
        vocab=vocabulary,
        merges=merge_list,
        unk_token=END,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        model_max_length=MAX_TOKENS,
    )
    tokenizer.save_pretrained(folder)
