"""The embedded demo model: a small latent diffusion model that paints postcards, and all that made it.

This folder is at once a Python package and a diffusers model folder: `model_index.json`, `unet/`, `vae/`,
`text_encoder/`, `tokenizer/` and `scheduler/` lie beside the code that trained them, and
`StableDiffusionPipeline.from_pretrained("pipeline/demo")` loads them. `README.md` is the model card.
"""
