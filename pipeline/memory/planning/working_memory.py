"""The memory that a stage needs besides its weights, and how a component's weights are spread over its parts.

The denoisers' figures were counted, not guessed: one forward pass of each published configuration over tensors without
storage (the meta device), adding up what is alive at the same time; attention counts as one operation that needs no
matrix of all pairs of tokens, as in every fused kernel. Two sizes give the two numbers per family. Check: FLUX.1 dev at
1024 x 1024 comes to 0.45 GiB, and its published peak is 0.47 GiB above its weights (`diffusers/benchmarks`).
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.weights.families import FAMILIES, Family

TILE_SIDE = 512
"""Side in pixels of the tiles that a VAE decodes with `vae_tiling`; smaller pictures are never tiled."""

_TILE_MARGIN = 1.25
"""Neighbouring tiles and the blending between them (InvokeAI's `vae_working_memory.py`)."""

ENCODING = 2 / 3
"""What encoding a picture needs, as a share of decoding one: 1100 elements per pixel (InvokeAI's
`vae_working_memory.py`) of 1650."""

_ON_CPU = 0.6
"""Share of the decoder's calibrated figure that a CPU needs. The figure holds cuDNN's workspaces and the allocator's
gaps: what is alive is 768 elements per pixel of 1650, and 980 were measured with oneDNN at 512 x 512."""

_TINY = 0.25
"""Share of the decoder's figure that AutoencoderTiny needs: 192 elements per pixel are alive, of the large one 768."""

_UNKNOWN_SIZE = 4e9
"""Parameters of a denoiser for which the largest of the known figures are taken as they are, where none is known."""


@dataclass(frozen=True, slots=True)
class ComponentParts:
    """Shares of a component's parameters.

    `fixed` are in no block, `passing` are the two largest blocks. `leaves` is what streaming layer by layer has on the
    device: the two largest layers of an encoder; a denoiser's largest one, since where most else is alive, two never
    were (counted). `linear` can be quantised, `cast` can be stored in float8. `coarse_fixed` and `coarse_passing` are
    the same for what diffusers takes for blocks: of a UNet, whole resolution levels. `largest_linear` is the largest
    layer that can be quantised; None means the largest of all, which in an encoder would be its vocabulary.
    """

    fixed: float
    passing: float
    leaves: float
    linear: float
    cast: float = 0.98
    coarse_fixed: float | None = None
    coarse_passing: float | None = None
    largest_linear: float | None = None

    @property
    def unpacked(self) -> float:
        """Of weights in fewer bits, the largest layer, which has 16 while it computes."""
        return self.leaves if self.largest_linear is None else self.largest_linear


@dataclass(frozen=True, slots=True)
class Activity:
    """The work of a denoiser's forward pass: `operations` per pixel at the family's size (multiplications and
    additions), and elements alive: per pixel of a picture, for the text, and with a mask that is stored, per pair of
    tokens.

    `with_loras`: how many times more with a LoRA on every layer of the blocks, whose own output comes beside the
    layer's. Where the peak is elsewhere, nothing changes, nor with a second one.
    """

    operations: float
    per_pixel: float
    for_text: float = 0.0
    writes_mask: bool = False
    with_loras: float = 1.0


DENOISERS: dict[str, tuple[Activity, ComponentParts]] = {
    "sd15": (Activity(3.06e6, 130, with_loras=1.31), ComponentParts(0.092, 0.114, 0.035, 0.312, 1.0, 0.115, 0.489)),
    "sdxl": (Activity(6.45e6, 79, with_loras=1.26), ComponentParts(0.021, 0.038, 0.012, 0.867, 1.0, 0.164, 0.765)),
    "sd3": (Activity(19e6, 84, 1.5e6, with_loras=1.29), ComponentParts(0.009, 0.091, 0.0095, 0.993, 0.658)),
    "flux": (Activity(70.9e6, 206, 27e6), ComponentParts(0.005, 0.057, 0.0048, 0.996, 0.727)),
    "flux2_klein": (Activity(34e6, 256, 35e6, with_loras=1.38), ComponentParts(0.050, 0.127, 0.022, 0.991, 0.995)),
    "qwen_image": (Activity(74e6, 182, 10e6, with_loras=1.26), ComponentParts(0.002, 0.033, 0.003, 0.999, 0.999)),
    "z_image": (Activity(59.6e6, 237, 31e6), ComponentParts(0.002, 0.059, 0.0064, 0.998, 0.998)),
    "sana": (Activity(2.83e6, 31, 0.7e6), ComponentParts(0.029, 0.097, 0.019, 0.507, 1.0)),
    "pixart_sigma": (Activity(5.3e6, 54, 0.4e6, with_loras=1.34), ComponentParts(0.026, 0.070, 0.0132, 0.996, 0.984)),
    "lumina2": (Activity(23e6, 237, 16e6), ComponentParts(0.004, 0.067, 0.0082, 0.997, 0.898)),
    "chroma": (Activity(69e6, 194, 28e6, writes_mask=True), ComponentParts(0.033, 0.051, 0.0054, 0.998, 1.0)),
}
"""Per family, in the order of `ComponentParts`."""

_ACTIVITIES, _PARTS = zip(*DENOISERS.values(), strict=True)
_UNKNOWN_PARTS = ComponentParts(
    fixed=max(parts.fixed for parts in _PARTS),
    passing=max(parts.passing for parts in _PARTS),
    leaves=max(parts.leaves for parts in _PARTS),
    linear=min(parts.linear for parts in _PARTS),
    cast=min(parts.cast for parts in _PARTS),
    coarse_fixed=max(parts.coarse_fixed or 0 for parts in _PARTS),
    coarse_passing=max(parts.coarse_passing or 0 for parts in _PARTS),
)
_UNKNOWN_ACTIVITY = Activity(
    max(one.operations for one in _ACTIVITIES),
    max(one.per_pixel for one in _ACTIVITIES),
    max(one.for_text for one in _ACTIVITIES),
    with_loras=max(one.with_loras for one in _ACTIVITIES),
)

ENCODERS: tuple[tuple[float, ComponentParts], ...] = (
    (0.123e9, ComponentParts(0.309, 0.115, 0.328, 0.690, largest_linear=0.0192)),  # CLIP-L
    (0.695e9, ComponentParts(0.094, 0.057, 0.101, 0.908, largest_linear=0.0095)),  # OpenCLIP bigG
    (
        2.614e9,
        ComponentParts(0.226, 0.060, 0.234, 0.774, largest_linear=0.0082),
    ),  # Gemma 2 2B
    (4.022e9, ComponentParts(0.097, 0.050, 0.193, 0.903, largest_linear=0.0062)),  # Qwen3 4B
    (4.762e9, ComponentParts(0.028, 0.081, 0.055, 0.972, largest_linear=0.0089)),  # T5 XXL
    (8.292e9, ComponentParts(0.137, 0.056, 0.131, 0.934, largest_linear=0.0658)),  # Qwen2.5-VL 7B; its output layer
)
"""Text encoders by their parameters."""


def denoiser_parts(family: str | None) -> ComponentParts:
    """How the parameters of a family's denoiser are spread; for an unknown family, the worst known values."""
    return DENOISERS[family][1] if family in DENOISERS else _UNKNOWN_PARTS


def encoder_parts(parameters: int) -> ComponentParts:
    """How the parameters of a text encoder are spread: as in the known one nearest in size."""
    return min(ENCODERS, key=lambda known: abs(known[0] - parameters))[1]


def denoise_elements(
    family: str | None, parameters: int, width: int, height: int, *, with_loras: bool = False
) -> float:
    """Elements alive while one picture goes through the denoiser once.

    Variants of a family differ in width: the figure grows with the square root of the parameters, as it does if the
    depth stays, and shrinks with the cube root, as it does if the depth shrinks along.
    """
    activity = DENOISERS[family][0] if family in DENOISERS else _UNKNOWN_ACTIVITY
    pixels = width * height
    elements = activity.per_pixel * pixels + activity.for_text
    scaled = elements * _scale(parameters, _published_denoiser(family))
    if activity.writes_mask:
        scaled += (pixels / 256 + 512) ** 2
    return scaled * (activity.with_loras if with_loras else 1.0)


def denoise_operations(family: str | None, parameters: int, width: int, height: int) -> float:
    """Operations of the denoiser for one picture in one step. They grow with a variant's parameters."""
    activity = DENOISERS[family][0] if family in DENOISERS else _UNKNOWN_ACTIVITY
    return activity.operations * width * height * parameters / _published_denoiser(family)


def decode_elements(family: str | None, parameters: int, pixels: float, *, tiny: bool, on_cpu: bool) -> float:
    """Elements that the decoder needs for one picture, or one tile, of this many pixels."""
    known = FAMILIES.get(family) if family else None
    per_pixel: float = max(one.decode_elements_per_pixel for one in ([known] if known else FAMILIES.values()))
    if tiny:
        per_pixel *= _TINY
    else:
        published = known.parameters.get("vae", 0.084e9) if known else 0.084e9
        per_pixel *= min(1.0, _scale(parameters, published))
    return per_pixel * pixels * (_ON_CPU if on_cpu else 1.0)


def tiled(pixels: float) -> float:
    """The number of pixels that are decoded at once with tiling."""
    return min(pixels, TILE_SIDE**2 * _TILE_MARGIN)


def encode_elements(parameters: int) -> float:
    """Elements alive while one prompt is encoded: 50 million in T5 XXL with 512 tokens (counted), more with hidden
    states of all layers or a vocabulary's logits, little in small encoders."""
    return min(128 * 2**20, parameters / 32)


def _scale(parameters: int, published: float) -> float:
    ratio = parameters / published
    return float(ratio**0.5 if ratio > 1 else ratio ** (1 / 3))


def _published_denoiser(family: str | None) -> float:
    known: Family | None = FAMILIES.get(family) if family else None
    return known.parameters[known.denoiser] if known else _UNKNOWN_SIZE
