"""The embedded demo model: a small latent diffusion model that paints postcards.

A Python package only so that it is installed: `model_index.json`, `unet/`, `vae/`, `text_encoder/`, `tokenizer/` and
`scheduler/` are a diffusers model folder, and `StableDiffusionPipeline.from_pretrained("pipeline/demo")` loads them.
`README.md` is the model card; `examples/demo_model/` is the code that trained it.
"""
