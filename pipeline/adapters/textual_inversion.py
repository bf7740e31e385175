"""Textual inversions: tokens that stand for embeddings. Found, checked, applied to text encoders and removed."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.adapters.find_weights import check_family, file_now, find, public_name
from pipeline.adapters.specs import EmbeddingSpec
from pipeline.errors import JobFailure, ModelError
from pipeline.request import EmbeddingWeights
from pipeline.weights.hashes import identified
from pipeline.weights.inspection import ModelFiles

if TYPE_CHECKING:
    import torch

TOKENIZED = ("sd15", "sdxl", "flux")
"""Families for whose pipelines diffusers has textual inversion."""

_ENCODER_KEYS = {"clip_l": "text_encoder", "clip_g": "text_encoder_2", "t5xxl": "text_encoder_2"}


def identify_embedding(spec: EmbeddingSpec, files: ModelFiles) -> EmbeddingWeights:
    """Find, check and hash a textual inversion. Raises `ModelError`."""
    source, token = str(spec.source), spec.token or Path(spec.source).stem
    if files.family is not None and files.family not in TOKENIZED:
        raise ModelError(
            f"embedding {Path(source).name}: diffusers has none for {files.label}; it has for Stable Diffusion 1.5, "
            "Stable Diffusion XL and FLUX.1"
        )
    path, facts = find(source, "embedding", "give a textual inversion as .safetensors")
    name = public_name(spec.name, source, path)
    # FLUX.1 has the text encoder of SD 1.5 besides another one, so it takes the same embeddings.
    if files.family != "flux":
        check_family("embedding", name, facts, files, by_width=files.family == "sd15")
    if not token.strip() or any(character.isspace() for character in token):
        raise ModelError(f"embedding {name}: token {token!r} should be one word, such as <{name}>")
    return EmbeddingWeights(name=name, source=str(path), sha256=identified(path, facts.files), token=token)


@dataclass(slots=True)
class TokensOn:
    """The tokens that are on a model now, and what must be restored. `seen` are its text encoders at that time.

    `tables` are embedding tables as they were, each with its encoder, which may be freed meanwhile.
    """

    embeddings: tuple[EmbeddingWeights, ...]
    seen: tuple[weakref.ref[Any], ...]
    tables: list[tuple[weakref.ref[Any], Any]] = field(default_factory=list)
    tokenizers: dict[str, Any] = field(default_factory=dict)


def apply(pipes: Sequence[Any], embeddings: tuple[EmbeddingWeights, ...]) -> TokensOn:
    """Add new tokens to tokenizers and text encoders. Raises `JobFailure` if an embedding does not fit.

    Tokenizers are replaced by copies and embedding tables by longer ones, so that taking off is putting back the
    originals, to the bit; diffusers' own loader draws numbers for new rows, and its unloader builds other tables.
    A text encoder that is not in memory is passed over.
    """
    encoders = _encoders(pipes[0])
    on = TokensOn(embeddings, tuple(weakref.ref(encoder) for encoder in encoders.values()))
    vectors: dict[str, list[tuple[str, torch.Tensor]]] = {}
    for one in embeddings:
        for name, rows in _vectors(pipes[0], one, encoders).items():
            vectors.setdefault(name, []).append((one.token, rows))
    try:
        for name, tokens in vectors.items():
            tokenizer_name = name.replace("text_encoder", "tokenizer")
            original = getattr(pipes[0], tokenizer_name)
            table = encoders[name].get_input_embeddings()
            tokenizer = copy.deepcopy(original)
            encoders[name].set_input_embeddings(_longer(table, tokenizer, tokens))
            on.tables.append((weakref.ref(encoders[name]), table))
            on.tokenizers[tokenizer_name] = original
            _set(pipes, tokenizer_name, tokenizer)
    except JobFailure:
        remove(pipes, on)
        raise
    return on


def remove(pipes: Sequence[Any], on: TokensOn) -> None:
    """Restore the original tokenizers and embedding tables."""
    for reference, table in on.tables:
        encoder = reference()
        if encoder is not None:
            encoder.set_input_embeddings(table)
    for name, tokenizer in on.tokenizers.items():
        _set(pipes, name, tokenizer)


def still_on(pipe: Any, on: TokensOn) -> bool:
    """Whether no text encoder was loaded again without the tokens since they were applied."""
    seen = [reference() for reference in on.seen]
    return all(any(encoder is one for one in seen) for encoder in _encoders(pipe).values())


def _encoders(pipe: Any) -> dict[str, Any]:
    """The text encoders that are in memory, by name."""
    names = [name for name in pipe.components if name.startswith("text_encoder")]
    return {name: getattr(pipe, name) for name in names if getattr(pipe, name) is not None}


def _vectors(pipe: Any, one: EmbeddingWeights, encoders: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The (tokens, width) vectors for each text encoder that is in memory, by its name."""
    from safetensors.torch import load_file

    path = file_now(one.source, one.sha256, "embedding", one.name)
    widths = {name: encoder.get_input_embeddings().weight.shape[-1] for name, encoder in encoders.items()}
    complete = all(name in encoders for name in pipe.components if name.startswith("text_encoder"))
    found: dict[str, torch.Tensor] = {}
    for key, tensor in load_file(path).items():
        rows = tensor.reshape(-1, tensor.shape[-1])
        named = _ENCODER_KEYS.get(key)
        fits = [name for name, width in widths.items() if width == rows.shape[-1] and named in (None, name)]
        if fits:
            found[fits[0]] = rows
        elif complete or named in encoders:
            raise JobFailure(
                f"embedding {one.name}: {key} has vectors of width {rows.shape[-1]}, the model's text encoders have "
                f"{', '.join(map(str, widths.values()))}; take one made for this model"
            )
    return found


def _longer(table: Any, tokenizer: Any, tokens: list[tuple[str, torch.Tensor]]) -> Any:
    """The embedding table with rows for new tokens; a second vector of TOKEN is that of TOKEN_1, as in diffusers."""
    import torch

    rows: dict[int, torch.Tensor] = {}
    for token, vectors in tokens:
        for place, vector in enumerate(vectors):
            word = token if place == 0 else f"{token}_{place}"
            if word in tokenizer.get_vocab():
                raise JobFailure(f"embedding token {word!r}: the model knows this word already; give another token")
            tokenizer.add_tokens(word)
            rows[tokenizer.convert_tokens_to_ids(word)] = vector
    old = table.weight
    weight = old.new_zeros((max(old.shape[0], max(rows) + 1), old.shape[1]))
    weight[: old.shape[0]] = old
    for row, vector in rows.items():
        weight[row] = vector.to(weight)
    rows_now, width = weight.shape
    return torch.nn.Embedding(rows_now, width, padding_idx=table.padding_idx, _weight=weight, _freeze=True).eval()


def _set(pipes: Sequence[Any], name: str, value: Any) -> None:
    for pipe in pipes:
        if name in pipe.components:
            setattr(pipe, name, value)
