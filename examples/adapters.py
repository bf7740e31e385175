"""LoRAs, a ControlNet, an IP-Adapter and a picture to start from, on the tiny models, which paint noise.

    python examples/build_tiny_models.py outputs/tiny
    python examples/adapters.py outputs/tiny

With your own weights only the paths differ.
"""

import sys
from pathlib import Path

from pipeline import ConfigError, ControlNet, IpAdapter, Lora, Pipeline, read_record

FOLDER = Path(sys.argv[1] if len(sys.argv) > 1 else "outputs/tiny")
MODEL, PICTURE = FOLDER / "tiny_sd15_parts", FOLDER / "picture.png"
ONE, TWO, FOREIGN = (FOLDER / "loras" / f"tiny_{file}.safetensors" for file in ("sd15/one", "sd15/two", "flux/one"))

CHOICES = {
    "nothing": {},
    # A path, or a path with a weight; `Lora` also gives it a name for the record.
    "two LoRAs": {"loras": [(ONE, 0.8), Lora(TWO, 0.5, name="second")]},
    # Follows the shapes of a picture, here for the first half of the steps.
    "ControlNet": {"controlnets": [ControlNet(FOLDER / "controlnet", image=PICTURE, strength=0.7, end=0.5)]},
    # Follows the look of a picture.
    "IP-Adapter": {"ip_adapters": [IpAdapter(FOLDER / "ip_adapter" / "ip0.safetensors", image=PICTURE, scale=0.6)]},
    # Starts from a picture instead of noise alone.
    "image-to-image": {"init_image": PICTURE, "strength": 0.5},
}

with Pipeline(str(MODEL)) as pipeline:  # stays loaded; adapters are applied and removed
    for title, adapters in CHOICES.items():
        picture = pipeline.generate("a house by the sea", seed=1, steps=4, width=64, height=64, **adapters)
        record = read_record(picture.save("outputs/adapters"))
        names = [one.name for one in (*record.loras, *record.controlnets, *record.ip_adapters)]
        print(f"{title:15} {record.task}, {', '.join(names) or 'no adapters'}; pixels {record.pixels_sha256[:8]}")
    # What does not fit the model is told before anything is made.
    try:
        pipeline.generate("a house", loras=[FOREIGN])
    except ConfigError as error:
        print(error)
