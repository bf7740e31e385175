"""What can be chosen about speed, and from when compiling pays; apart from what does it, which takes long to import."""

from __future__ import annotations

ATTENTION_BACKENDS: dict[str, str] = {
    "native": "native",
    "cudnn": "_native_cudnn",
    "flash": "flash",
    "flash3": "_flash_3",
    "sage": "sage",
    "xformers": "xformers",
}
"""Our names for diffusers' attention backends that need no download; all but `native` need a GPU."""

STEP_CACHES: dict[str, frozenset[str]] = {
    "first_block": frozenset({"flux", "qwen_image"}),
    "taylor_seer": frozenset({"flux", "flux2_klein", "qwen_image"}),
}
"""Step caches by name, with the families (keys of `FAMILIES`) whose denoiser and pipeline have them. All change pixels;
with `first_block`, a picture also depends on its neighbours in the batch, for whose mean change it decides."""

DEPENDS_ON_NEIGHBOURS = ("first_block",)
"""Step caches with which a picture depends on its batch; it is made alone then, so that it can be made again."""

REGIONAL_BREAK_EVEN = 5
FULL_BREAK_EVEN = 31
"""Images of one size and with the same LoRAs after which compiling has paid for itself: 9.6 s for the repeated blocks,
67 s for the whole, 2.2 s saved per image (FLUX.1 dev on an H100; PyTorch, "torch.compile and Diffusers", 2026)."""
