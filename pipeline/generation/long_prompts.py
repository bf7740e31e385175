"""Prompt weights and prompts of any length for models whose text encoders are CLIP alone.

The syntax is A1111's: `(word)` weighs 1.1, `[word]` 1/1.1, `(word:1.3)` 1.3; they nest, and a backslash makes a bracket
plain. What CLIP makes of weights and of more than its 75 tokens is the work of `compel`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pipeline.generation.prompt_tokens import tokenizers_of
from pipeline.memory.device.embedding_cache import Embedding

if TYPE_CHECKING:
    import torch

ROUND, SQUARE = 1.1, 1 / 1.1

_MARKS = re.compile(r"\\[()\[\]\\]|\\|\(|\[|:\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*\)|\)|\]|[^\\()\[\]:]+|:")

Fragments = tuple[tuple[str, float], ...]


def takes_weights(pipe: Any) -> bool:
    """Whether brackets in prompts are weights: for Stable Diffusion up to XL. For others they are text."""
    kinds = [type(tokenizer).__name__ for tokenizer in tokenizers_of(pipe).values()]
    return hasattr(pipe, "unet") and bool(kinds) and all(kind.startswith("CLIP") for kind in kinds)


def parse_weights(text: str) -> Fragments:
    """A prompt as pieces of text with their weights; neighbours of the same weight are one piece. Never fails.

    As A1111 reads it (`modules/prompt_parser.py`, `parse_prompt_attention`): a bracket that is never closed counts.
    """
    pieces: list[list[Any]] = []
    open_round: list[int] = []
    open_square: list[int] = []

    def weigh(start: int, factor: float) -> None:
        for piece in pieces[start:]:
            piece[1] *= factor

    for mark in _MARKS.finditer(text):
        found, weight = mark.group(0), mark.group(1)
        if found == "(":
            open_round.append(len(pieces))
        elif found == "[":
            open_square.append(len(pieces))
        elif weight is not None and open_round:
            weigh(open_round.pop(), float(weight))
        elif found == ")" and open_round:
            weigh(open_round.pop(), ROUND)
        elif found == "]" and open_square:
            weigh(open_square.pop(), SQUARE)
        else:
            pieces.append([found.removeprefix("\\"), 1.0])
    for start in open_round:
        weigh(start, ROUND)
    for start in open_square:
        weigh(start, SQUARE)
    merged: list[list[Any]] = []
    for piece, factor in pieces:
        if merged and merged[-1][1] == factor:
            merged[-1][0] += piece
        else:
            merged.append([piece, factor])
    return tuple((piece, factor) for piece, factor in merged)


def plain_text(fragments: Fragments) -> str:
    """The prompt without its weight brackets."""
    return "".join(piece for piece, _ in fragments)


def weighed_embeddings(pipe: Any, fragments: Fragments, clip_skip: int | None, device: torch.device) -> Any:
    """Token embeddings (1, n x length of CLIP's input, width) for all n chunks of a prompt."""
    import torch

    encoders = [(getattr(pipe, name), tokenizer) for name, tokenizer in tokenizers_of(pipe).items()]
    columns = []
    for encoder, tokenizer in encoders:
        pieces = [(_expanded(pipe, piece, tokenizer), weight) for piece, weight in fragments]
        # compel fails on pieces without a token that weigh less than 1, and on no piece at all.
        pieces = [one for one in pieces if tokenizer(one[0], add_special_tokens=False, verbose=False).input_ids]
        pieces = pieces or [("", 1.0)]
        provider = _provider(encoder, tokenizer, clip_skip, device, is_xl=len(encoders) > 1)
        columns.append(
            provider.get_embeddings_for_weighted_prompt_fragments(
                [[piece for piece, _ in pieces]], [[weight for _, weight in pieces]], device=device
            )
        )
    return torch.cat([column.to(columns[-1].dtype) for column in columns], dim=-1).to(encoders[-1][0].dtype)


def padded_alike(
    one: Embedding, other: Embedding, empty_one: Embedding, empty_other: Embedding
) -> tuple[Embedding, Embedding]:
    """The embeddings of two texts, the shorter one padded with empty chunks to the length of the other."""
    length = max(_tokens(one), _tokens(other))
    return _padded(one, empty_one, length), _padded(other, empty_other, length)


def is_of_other_length(one: Embedding, other: Embedding) -> bool:
    """Whether two texts have different numbers of chunks."""
    return _tokens(one) != _tokens(other)


def _tokens(embedding: Embedding) -> int:
    return embedding.tensors[_embeds(embedding)].shape[1]


def _embeds(embedding: Embedding) -> str:
    return next(name for name in embedding.tensors if name in ("prompt_embeds", "negative_prompt_embeds"))


def _padded(embedding: Embedding, empty: Embedding, length: int) -> Embedding:
    import torch

    name = _embeds(embedding)
    chunk = empty.tensors[name]
    missing = (length - _tokens(embedding)) // chunk.shape[1]
    longer = torch.cat([embedding.tensors[name], *[chunk] * missing], dim=1)
    return replace(embedding, tensors={**embedding.tensors, name: longer})


def _expanded(pipe: Any, text: str, tokenizer: Any) -> str:
    """With the tokens of a textual inversion written out."""
    convert = getattr(pipe, "maybe_convert_prompt", None)
    return str(convert(text, tokenizer)) if convert else text


def _provider(encoder: Any, tokenizer: Any, clip_skip: int | None, device: torch.device, *, is_xl: bool) -> Any:
    """compel's encoder of weighed pieces, reading the layer that the pipeline reads."""
    from compel.embeddings_provider import EmbeddingsProvider, SplitLongTextMode

    class Provider(EmbeddingsProvider):  # type: ignore[misc]
        def _encode_token_ids_to_embeddings(self, token_ids: Any, attention_mask: Any = None) -> Any:
            output = encoder(token_ids, attention_mask, output_hidden_states=True, return_dict=True)
            if is_xl:
                return output.hidden_states[-((clip_skip or 0) + 2)]
            if clip_skip is None:
                return output.last_hidden_state
            return encoder.text_model.final_layer_norm(output.hidden_states[-(clip_skip + 1)])

    return Provider(tokenizer, encoder, truncate=False, device=device, split_long_text_mode=SplitLongTextMode.PHRASES)
