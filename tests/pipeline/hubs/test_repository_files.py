"""Which files of a repository on Hugging Face are fetched."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.hubs.huggingface_protocol import RepositoryFile, RepositoryInfo
from pipeline.hubs.repository_files import (
    Unfit,
    component_files,
    folder_files,
    named_files,
    pipeline_files,
    single_file,
)

INDEX: dict[str, Any] = {
    "_class_name": "StableDiffusionXLPipeline",
    "_diffusers_version": "0.42.1",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    "image_encoder": [None, None],
    "force_zeros_for_empty_prompt": True,
}

SDXL = """
.gitattributes README.md model_index.json sd_xl_base_1.0.safetensors LICENSE.md comparison.png
scheduler/scheduler_config.json
text_encoder/config.json text_encoder/model.safetensors text_encoder/model.fp16.safetensors
text_encoder/pytorch_model.bin text_encoder/model.onnx text_encoder/flax_model.msgpack
tokenizer/merges.txt tokenizer/vocab.json tokenizer/tokenizer_config.json tokenizer/tokenize.py
unet/config.json unet/diffusion_pytorch_model.safetensors unet/diffusion_pytorch_model.fp16.safetensors
unet/diffusion_pytorch_model.non_ema.safetensors unet/diffusion_pytorch_model.ckpt unet/modeling.py
vae/config.json vae/diffusion_pytorch_model.safetensors vae/diffusion_pytorch_model.pt
vae_1_0/config.json vae_1_0/diffusion_pytorch_model.safetensors
safety_checker/config.json safety_checker/model.safetensors
""".split()  # noqa: SIM905 - read like a listing


def files(*names: str) -> list[RepositoryFile]:
    return [RepositoryFile(name=name) for name in names]


def files_of(siblings: Any) -> tuple[RepositoryFile, ...]:
    return RepositoryInfo.model_validate({"siblings": siblings}).files


def listed(siblings: Any) -> tuple[list[RepositoryFile], int]:
    found = named_files(files_of(siblings))
    return found, len(files_of(siblings)) - len(found)


def chosen(names: list[str], index: dict[str, Any] | None = None) -> set[str]:
    return {file.name for file in pipeline_files(files(*names), index or INDEX)}


def test_a_diffusers_repository_is_its_components_in_half_precision() -> None:
    assert chosen(SDXL) == {
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.fp16.safetensors",
        "tokenizer/merges.txt",
        "tokenizer/vocab.json",
        "tokenizer/tokenizer_config.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",  # the only precision there is
    }


def test_weights_in_parts_come_with_all_parts_and_one_precision() -> None:
    parts = [f"transformer/diffusion_pytorch_model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
    half = [f"transformer/diffusion_pytorch_model.fp16-0000{n}-of-00002.safetensors" for n in (1, 2)]
    small = ["model_index.json", "transformer/config.json",
             "transformer/diffusion_pytorch_model.safetensors.index.json"]  # fmt: skip
    index = {"_class_name": "FluxPipeline", "transformer": ["diffusers", "FluxTransformer2DModel"]}
    assert chosen([*small, *parts], index) == {*small, *parts}
    assert chosen([*small, *parts, *half], index) == {*small, *half}
    with pytest.raises(Unfit, match="2 of 3 parts"):
        chosen([*small, *parts[:2]], index)


def test_weights_that_are_only_pickles_are_refused() -> None:
    names = ["model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.bin"]
    index = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    with pytest.raises(Unfit, match=r"unet/ only as diffusion_pytorch_model\.bin, a pickle"):
        chosen(names, index)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"unet": ["my_code", "Net"]}, "code from 'my_code'"),
        ({"_class_name": ["pipeline.py", "Own"]}, "names no pipeline"),
        ({"../unet": ["diffusers", "UNet2DConditionModel"]}, "is no name"),
        ({"controlnet": ["diffusers", "ControlNetModel"]}, "lacks the folder controlnet/"),
    ],
)
def test_an_index_that_would_run_code_or_leave_its_folder_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(Unfit, match=said):
        chosen(SDXL, {**INDEX, **change})


def test_a_configuration_of_a_gigabyte_is_refused() -> None:
    listed = files_of(
        [{"rfilename": "model_index.json", "size": 500}, {"rfilename": "tokenizer/vocab.json", "size": 2**30}]
    )
    with pytest.raises(Unfit, match="no configuration or vocabulary"):
        pipeline_files(listed, {"_class_name": "X", "tokenizer": ["transformers", "CLIPTokenizer"]})


def test_a_component_is_its_configuration_and_its_weights() -> None:
    names = ("README.md", "config.json", "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
    found = component_files(files(*names, "diffusion_pytorch_model.fp16.safetensors", "sdxl_vae.safetensors"))
    assert found is not None
    assert [file.name for file in found] == ["config.json", "diffusion_pytorch_model.fp16.safetensors"]
    assert component_files(files("README.md", "lora.safetensors")) is None


def test_a_component_inside_a_repository_is_its_folder() -> None:
    listed = files(
        "models/image_encoder/config.json", "models/image_encoder/model.safetensors", "models/ip.safetensors"
    )
    found = folder_files(listed, "models/image_encoder")
    assert found is not None and len(found) == 2
    assert folder_files(listed, "models") is None


@pytest.mark.parametrize(
    ("names", "asked", "found"),
    [
        (["README.md", "pixel.safetensors"], None, "pixel.safetensors"),
        (["a.safetensors", "b.gguf"], "b.gguf", "b.gguf"),
        (["other.safetensors", "pytorch_lora_weights.safetensors"], None, "pytorch_lora_weights.safetensors"),
    ],
)
def test_the_one_file_that_is_meant(names: list[str], asked: str | None, found: str) -> None:
    assert single_file(files(*names), asked, "a/b").name == found


@pytest.mark.parametrize(
    ("names", "asked", "said"),
    [
        (["a.safetensors", "b.safetensors"], None, "say which: hf:a/b/a.safetensors, hf:a/b/b.safetensors"),
        (["a.safetensors"], "c.safetensors", r"no file 'c.safetensors'; it has hf:a/b/a.safetensors"),
        (["a.safetensors", "a.ckpt"], "a.ckpt", "a pickle, which can run code"),
        (["model.ckpt"], None, r"only as model\.ckpt, a pickle"),
        (["README.md"], None, "holds no weights"),
        (["a.safetensors", "run.py"], "run.py", "ends in .safetensors or .gguf"),
    ],
)
def test_what_is_not_one_file_of_weights_is_said(names: list[str], asked: str | None, said: str) -> None:
    with pytest.raises(Unfit, match=said):
        single_file(files(*names), asked, "a/b")


HOSTILE = ["../../etc/x.safetensors", "/etc/passwd", "a\0b.safetensors", "x" * 300 + ".safetensors", "a//b.json",
           "C:\\x.safetensors", "unet/../../x.json", "con.json", "evil\u202etxt.json", "tab\tname.json"]  # fmt: skip


def test_hostile_names_are_left_out_and_counted() -> None:
    good = {"rfilename": "unet/config.json", "size": 10, "blobId": "a" * 40}
    found, refused = listed([good, *({"rfilename": name} for name in HOSTILE), {"rfilename": 7}, "x", None])
    assert found == [RepositoryFile(name="unet/config.json", bytes=10, git_blob="a" * 40)]
    assert refused == len(HOSTILE) + 1


def test_names_that_are_one_file_on_some_systems_are_both_left_out() -> None:
    found, refused = listed([{"rfilename": "unet/Config.json"}, {"rfilename": "unet/config.json"}])
    assert (found, refused) == ([], 2)


def test_large_files_have_the_sha256_of_their_content() -> None:
    large = {"rfilename": "a.safetensors", "size": 134, "blobId": "b" * 40,
             "lfs": {"sha256": "C" * 64, "size": 5_000, "pointerSize": 134}}  # fmt: skip
    assert listed([large])[0] == [RepositoryFile(name="a.safetensors", bytes=5_000, sha256="c" * 64)]
    large["lfs"] = {"size": 5_000}  # what is left is the hash of the pointer, which says nothing of the content
    assert listed([large])[0] == [RepositoryFile(name="a.safetensors", bytes=5_000)]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.slow
@given(st.lists(st.fixed_dictionaries({}, optional={"rfilename": JSON, "size": JSON, "lfs": JSON, "blobId": JSON})))
def test_any_list_of_files_is_survived(siblings: list[Any]) -> None:
    found, refused = listed(siblings)
    assert len(found) + refused <= len(siblings) + len(found)


@given(st.dictionaries(st.sampled_from(["_class_name", "unet", "vae", "tokenizer", "x"]) | st.text(), JSON))
def test_any_index_is_survived(index: dict[str, Any]) -> None:
    try:
        found = pipeline_files(files(*SDXL), index)
    except Unfit:
        return
    assert all(not file.name.endswith((".bin", ".py", ".ckpt", ".pt")) for file in found)
