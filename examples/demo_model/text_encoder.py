"""The demo model's text encoder, and the first lesson it gets.

A prompt becomes (32, 96): tokens, features. The classes are CLIP's, which every Stable Diffusion pipeline
knows how to run; two layers let `clip_skip=1` work. Before the denoiser trains it further, it learns for a
few hundred steps to tell what a caption asks for. That costs seconds, and spares the denoiser from finding
out through noise that words matter.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

from examples.demo_model.captions import caption, training_scene
from examples.demo_model.scenes import COLOURS, OBJECTS, PLACES, SIDES, TIMES, Scene
from examples.demo_model.words import MAX_TOKENS

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import CLIPTextModel, CLIPTokenizer

FEATURES = 96
ATTRIBUTES: tuple[tuple[str | None, ...], ...] = (
    PLACES,
    TIMES,
    (None, *SIDES),
    (None, *OBJECTS),
    (None, *COLOURS),
)


def make_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Return an untrained text encoder of 0.3 million parameters for the tokenizer's vocabulary."""
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=FEATURES,
        intermediate_size=4 * FEATURES,
        projection_dim=FEATURES,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Return token ids (n, 32), padded and cut as Stable Diffusion's pipeline does."""
    ids: Tensor = tokenizer(
        captions, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
    ).input_ids
    return ids


def teach_words(text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, steps: int = 800, seed: int = 0) -> float:
    """Train `text_encoder` to say each attribute of a caption's scene from its last states; return the
    accuracy.

    The states after the caption's end are used, since under CLIP's causal mask only those have seen all of
    it.
    """
    import torch
    from torch.nn.functional import cross_entropy

    rng = Random(seed)
    head = torch.nn.Linear(FEATURES, sum(len(choices) for choices in ATTRIBUTES))
    weights = [*text_encoder.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=2e-3, weight_decay=1e-3)
    accuracy = 0.0
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 - step / steps)
        scenes = [training_scene(rng) for _ in range(64)]
        ids = tokenize(tokenizer, [caption(scene, rng) for scene in scenes])
        states: Any = text_encoder(ids).last_hidden_state
        ended = (ids == tokenizer.eos_token_id).unsqueeze(-1)
        guesses = head((states * ended).sum(1) / ended.sum(1)).split([len(row) for row in ATTRIBUTES], dim=1)
        answers = torch.tensor([_answers(scene) for scene in scenes])
        losses = [cross_entropy(guess, answers[:, i]) for i, guess in enumerate(guesses)]
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(torch.stack(losses).sum())
        optimizer.step()
        right = [(guess.argmax(1) == answers[:, i]).float().mean().item() for i, guess in enumerate(guesses)]
        accuracy = 0.95 * accuracy + 0.05 * sum(right) / len(right)
    return accuracy


def _answers(scene: Scene) -> list[int]:
    """Return the index of each of the scene's attributes among its choices."""
    values = (scene.place, scene.time, scene.side, scene.object, scene.colour)
    return [choices.index(value) for choices, value in zip(ATTRIBUTES, values, strict=True)]
