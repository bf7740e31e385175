"""How many tokens a prompt has in each text encoder, and how many of them were cut off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

from pipeline.generation.text_interface import parameters
from pipeline.request import PromptTokens


def tokenizers_of(pipe: Any) -> dict[str, Any]:
    """A pipeline's tokenizers, by the name of the text encoder that each feeds."""
    # Not `pipe.components`, which reads the signature of the class each time: this is asked several times a text.
    names = (name for name in parameters(type(pipe).__init__) if name.startswith("tokenizer"))
    found = ((name, getattr(pipe, name, None)) for name in names)
    return {name.replace("tokenizer", "text_encoder"): one for name, one in found if one is not None}


@contextmanager
def counted(pipe: Any, prompt: str) -> Iterator[list[PromptTokens]]:
    """Yields a list that holds one entry per text encoder once the prompt was encoded within the block.

    Pipelines put prompts into templates, lower-case them and set lengths of their own; so what is counted as cut off is
    seen where the tokenizers are called. `tokens` are those of the prompt alone.
    """
    found: list[PromptTokens] = []
    named = tokenizers_of(pipe)
    lost: dict[int, int] = {}
    with ExitStack() as patches:
        for kind in {type(tokenizer) for tokenizer in named.values()}:
            patches.enter_context(_watched(kind, lost))
        yield found
    for name, tokenizer in named.items():
        ids = tokenizer(prompt, add_special_tokens=False, verbose=False).input_ids
        found.append(PromptTokens(name, len(ids), min(len(ids), lost.get(id(tokenizer), 0))))


@contextmanager
def _watched(kind: Any, lost: dict[int, int]) -> Iterator[None]:
    """Within the block, note what tokenizers of a class cut off, by their `id`."""
    call = kind.__call__

    @wraps(call)
    def watching(self: Any, text: Any = None, *arguments: Any, **options: Any) -> Any:
        result = call(self, text, *arguments, **options)
        if options.get("truncation"):
            whole = call(self, text, add_special_tokens=options.get("add_special_tokens", True), verbose=False)
            lengths = [len(ids) for ids in whole.input_ids] if isinstance(text, list) else [len(whole.input_ids)]
            kept = options.get("max_length") or self.model_max_length
            lost[id(self)] = max(lost.get(id(self), 0), *(length - kept for length in lengths))
        return result

    own = "__call__" in vars(kind)
    kind.__call__ = watching
    try:
        yield
    finally:
        if own:
            kind.__call__ = call
        else:
            del kind.__call__
