"""Tokenizers of every kind that the tiny models need, built here: each character, or byte, is a token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CLIP_TOKENS = 32
"""Length of the input of the tiny CLIP text encoders."""

_CHARACTERS = [chr(code) for code in range(33, 127)]

QWEN_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
)
"""The parts of Qwen 3's chat template that a single user message meets."""


def write_clip(folder: Path) -> Any:
    """Byte-level without merges: every character of ASCII is a piece of its own."""
    from transformers import CLIPTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    words = [*_CHARACTERS, *(c + "</w>" for c in _CHARACTERS), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "CLIPTokenizer",
                "model_max_length": CLIP_TOKENS,
                "bos_token": "<|startoftext|>",
                "eos_token": "<|endoftext|>",
                "unk_token": "<|endoftext|>",
                "pad_token": "<|endoftext|>",
            }
        )
    )
    return CLIPTokenizer.from_pretrained(folder)


def t5() -> Any:
    """Unigram over single characters; 99 pieces."""
    from transformers import T5TokenizerFast

    special = [(word, 0.0) for word in ("<pad>", "</s>", "<unk>")]
    return T5TokenizerFast(
        vocab=[*special, ("▁", -2.0), *((c, -3.0) for c in _CHARACTERS)], extra_ids=0, model_max_length=512
    )


def gemma() -> Any:
    """Byte-pair encoding with byte fallback and without merges."""
    from transformers import GemmaTokenizerFast

    words = [
        "<pad>",
        "<eos>",
        "<bos>",
        "<unk>",
        "<mask>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        *_CHARACTERS,
    ]
    return GemmaTokenizerFast(vocab={word: index for index, word in enumerate(words)}, merges=[], model_max_length=4096)


def qwen() -> Any:
    """Byte-level without merges, with the chat marks and a chat template."""
    from tokenizers import pre_tokenizers
    from transformers import Qwen2TokenizerFast

    words = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Qwen2TokenizerFast(
        vocab={word: index for index, word in enumerate(words)}, merges=[], model_max_length=4096
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = QWEN_CHAT
    return tokenizer
