"""Tiny models of the families whose denoiser is a transformer.

Autoencoders shrink by the factor of the real ones, 8 (Sana's 32), so that the rules about sizes are the real rules;
everything else is as small as the classes allow. They make pictures of 32 x 32 pixels (Sana 64 x 64) and up.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tiny_tokenizers as tokenizers

_BLOCKS = (8, 8, 8, 16)


def sd3(folder: Path) -> Any:
    """Two CLIP encoders with projections and T5, all three in one embedding."""
    from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline
    from transformers import CLIPTextModelWithProjection

    return StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=8,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=64,
            caption_projection_dim=32,
            pooled_projection_dim=64,
            dual_attention_layers=(0,),
            qk_norm="rms_norm",
        ),
        vae=_autoencoder(scaling_factor=1.5305, shift_factor=0.0609),
        text_encoder=CLIPTextModelWithProjection(clip_config(projection_dim=32)),
        text_encoder_2=CLIPTextModelWithProjection(clip_config(projection_dim=32)),
        text_encoder_3=_t5_encoder(d_model=64),
        tokenizer=tokenizers.write_clip(folder / "tokenizer"),
        tokenizer_2=tokenizers.write_clip(folder / "tokenizer_2"),
        tokenizer_3=tokenizers.t5(),
        scheduler=_flow_matching(shift=3.0),
    )


def flux(folder: Path) -> Any:
    """FLUX.1 dev: CLIP for the pooled embedding, T5 for the tokens, guidance embedded."""
    from diffusers import FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextModel

    return FluxPipeline(
        transformer=FluxTransformer2DModel(**_mmdit(pooled_projection_dim=32, guidance_embeds=True)),
        vae=_autoencoder(scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=CLIPTextModel(clip_config()),
        text_encoder_2=_t5_encoder(),
        tokenizer=tokenizers.write_clip(folder / "tokenizer"),
        tokenizer_2=tokenizers.t5(),
        scheduler=_flow_matching(shift=3.0, use_dynamic_shifting=True),
    )


def chroma(folder: Path) -> Any:
    """FLUX's layout with T5 alone and true guidance."""
    from diffusers import ChromaPipeline, ChromaTransformer2DModel

    return ChromaPipeline(
        transformer=ChromaTransformer2DModel(
            **_mmdit(approximator_num_channels=16, approximator_hidden_dim=32, approximator_layers=1)
        ),
        vae=_autoencoder(scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=_t5_encoder(),
        tokenizer=tokenizers.t5(),
        scheduler=_flow_matching(use_dynamic_shifting=True),
    )


def flux2_klein(folder: Path) -> Any:
    """Three hidden layers of Qwen 3 as embedding (the 9th, 18th and 27th, hence 28), batch-normed latents."""
    import torch
    from diffusers import AutoencoderKLFlux2, Flux2KleinPipeline, Flux2Transformer2DModel
    from transformers import Qwen3ForCausalLM

    vae = AutoencoderKLFlux2(
        block_out_channels=_BLOCKS, layers_per_block=1, norm_num_groups=4, latent_channels=32, sample_size=64
    )
    torch.nn.init.uniform_(vae.bn.running_mean, -0.2, 0.2)
    torch.nn.init.uniform_(vae.bn.running_var, 0.5, 2.0)
    return Flux2KleinPipeline(
        transformer=Flux2Transformer2DModel(
            in_channels=128,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=3 * 16,
            timestep_guidance_channels=16,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=False,
        ),
        vae=vae,
        text_encoder=Qwen3ForCausalLM(_qwen3_config(num_hidden_layers=28)),
        tokenizer=tokenizers.qwen(),
        scheduler=_flow_matching(use_dynamic_shifting=True),
        is_distilled=False,
    )


def qwen_image(folder: Path) -> Any:
    """Qwen2.5-VL as text encoder and an autoencoder for video with one frame."""
    from diffusers import AutoencoderKLQwenImage, QwenImagePipeline, QwenImageTransformer2DModel
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    tokenizer = tokenizers.qwen()
    rope = {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default", "rope_theta": 1000000.0}
    size = {"hidden_size": 16, "intermediate_size": 16}
    config = Qwen2_5_VLConfig(
        text_config={
            **size,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "rope_parameters": rope,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 4096,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={**size, "depth": 2, "num_heads": 2, "out_hidden_size": 16},
    )
    return QwenImagePipeline(
        transformer=QwenImageTransformer2DModel(
            num_layers=2, attention_head_dim=16, num_attention_heads=3, joint_attention_dim=16, axes_dims_rope=(8, 4, 4)
        ),
        vae=AutoencoderKLQwenImage(base_dim=8, dim_mult=[1, 1, 1, 1], num_res_blocks=1),
        text_encoder=Qwen2_5_VLForConditionalGeneration(config),
        tokenizer=tokenizer,
        scheduler=_flow_matching(use_dynamic_shifting=True, base_shift=0.5, max_shift=0.9),
    )


def z_image(folder: Path) -> Any:
    """Texts as a list of tensors of their own lengths."""
    import torch
    from diffusers import ZImagePipeline, ZImageTransformer2DModel
    from transformers import Qwen3Model

    transformer = ZImageTransformer2DModel(
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[8, 4, 4],
        axes_lens=[1024, 64, 64],
    )
    for token in (transformer.x_pad_token, transformer.cap_pad_token):  # created without values
        torch.nn.init.normal_(token, std=0.02)
    return ZImagePipeline(
        transformer=transformer,
        vae=_autoencoder(scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=Qwen3Model(_qwen3_config()),
        tokenizer=tokenizers.qwen(),
        scheduler=_flow_matching(shift=3.0),
    )


def sana(folder: Path) -> Any:
    """Gemma 2 and the deeply compressing autoencoder."""
    from diffusers import AutoencoderDC, DPMSolverMultistepScheduler, SanaPipeline, SanaTransformer2DModel

    blocks, one = (8, 8, 8, 8, 8, 32), (1,) * 6  # the last is not below the latent channels
    kinds, scales = ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3, ((), (), (), (5,), (5,), (5,))
    return SanaPipeline(
        transformer=SanaTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=2,
            num_cross_attention_heads=2,
            cross_attention_head_dim=8,
            cross_attention_dim=16,
            caption_channels=16,
        ),
        vae=AutoencoderDC(
            latent_channels=32,
            attention_head_dim=2,
            encoder_block_types=kinds,
            decoder_block_types=kinds,
            encoder_block_out_channels=blocks,
            decoder_block_out_channels=blocks,
            encoder_layers_per_block=one,
            decoder_layers_per_block=one,
            encoder_qkv_multiscales=scales,
            decoder_qkv_multiscales=scales,
            scaling_factor=0.41407,
        ),
        text_encoder=_gemma2(),
        tokenizer=tokenizers.gemma(),
        scheduler=DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, solver_order=2
        ),
    )


def pixart_sigma(folder: Path) -> Any:
    """T5 with masks, a learned variance, and a scheduler for noise prediction."""
    from diffusers import DPMSolverMultistepScheduler, PixArtSigmaPipeline, PixArtTransformer2DModel

    return PixArtSigmaPipeline(
        transformer=PixArtTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=2,
            cross_attention_dim=16,
            caption_channels=32,
            sample_size=128,
            use_additional_conditions=False,
        ),
        vae=_autoencoder(latent_channels=4, scaling_factor=0.13025),
        text_encoder=_t5_encoder(),
        tokenizer=tokenizers.t5(),
        scheduler=DPMSolverMultistepScheduler(beta_start=0.0001, beta_end=0.02),
    )


def lumina2(folder: Path) -> Any:
    """Gemma 2 with a system prompt before the text."""
    from diffusers import Lumina2Pipeline, Lumina2Transformer2DModel

    return Lumina2Pipeline(
        transformer=Lumina2Transformer2DModel(
            hidden_size=16,
            num_layers=2,
            num_refiner_layers=1,
            num_attention_heads=2,
            num_kv_heads=1,
            multiple_of=16,
            axes_dim_rope=(4, 2, 2),
            cap_feat_dim=16,
        ),
        vae=_autoencoder(scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=_gemma2(),
        tokenizer=tokenizers.gemma(),
        scheduler=_flow_matching(shift=6.0),
    )


def clip_config(**options: Any) -> Any:
    """Of a CLIP text encoder for `tiny_tokenizers.write_clip`."""
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=190,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=tokenizers.CLIP_TOKENS,
        bos_token_id=188,
        eos_token_id=189,
        pad_token_id=189,
        **options,
    )


def _mmdit(**options: Any) -> dict[str, Any]:
    return {
        "in_channels": 64,
        "num_layers": 2,
        "num_single_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": 32,
        "axes_dims_rope": (4, 4, 8),
        **options,
    }


def _autoencoder(**options: Any) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=_BLOCKS,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
        sample_size=64,
        **{"latent_channels": 16, **options},
    )


def _t5_encoder(d_model: int = 32) -> Any:
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizers.t5()),
            d_model=d_model,
            d_kv=8,
            d_ff=64,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
        )
    )


def _gemma2() -> Any:
    from transformers import Gemma2Config, Gemma2Model

    tokenizer = tokenizers.gemma()
    return Gemma2Model(
        Gemma2Config(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _qwen3_config(**options: Any) -> Any:
    from transformers import Qwen3Config

    tokenizer = tokenizers.qwen()
    return Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=4096,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **{"num_hidden_layers": 3, **options},
    )


def _flow_matching(**options: Any) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(**options)
