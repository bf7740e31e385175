"""Inspects one weights file, or the folder of one component, by its header."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.errors import ModelError
from pipeline.weights.adapter_detection import detect_adapter, is_ip_adapter
from pipeline.weights.checkpoint_parts import CLASSES, split
from pipeline.weights.denoiser_detection import Denoiser, detect, prediction_markers, sample_of
from pipeline.weights.families import FAMILIES
from pipeline.weights.folder_inspection import OPTIONAL, quantization_of, read_json
from pipeline.weights.headers.base import TensorInfo, WeightsHeader, dtypes, parameters, tensor_bytes
from pipeline.weights.headers.gguf import quantization_name
from pipeline.weights.headers.read import read_weights
from pipeline.weights.lora_detection import Lora, detect_lora
from pipeline.weights.model_files import Component, FileFacts
from pipeline.weights.weights_files import check_shards, component_weights


def inspect_file(path: Path) -> FileFacts:
    """Inspect a weights file, or a component's folder with a config.json. Raises `ModelError`.

    Refused are pickles, files that are not what their name says, cut-off files, and weights of no known kind.
    """
    if path.is_dir():
        return _component_folder(path)
    return inspect_header(path, read_weights(path))


def inspect_header(
    path: Path, header: WeightsHeader, configuration: Mapping[str, Any] | None = None, files: tuple[Path, ...] = ()
) -> FileFacts:
    """Inspect weights by this header: a file, or with a configuration a component. Raises `ModelError`.

    What `path` and `files` name need not be here yet.
    """
    if not header.tensors:
        raise ModelError(f"{path.name}: holds no tensors")
    if configuration is None:
        return _facts(path, (path,), header, None, _quantization(header))
    said = configuration.get("_class_name") or next(iter(configuration.get("architectures") or ()), None)
    return _facts(path, files, header, str(said) if said else None, quantization_of(configuration))


def _component_folder(path: Path) -> FileFacts:
    if not (path / "config.json").is_file():
        if (path / "model_index.json").is_file():
            raise ModelError(f"{path.name}: is a whole model; name the component meant, such as {path.name}/vae")
        raise ModelError(f"{path.name}: has no config.json; expected the folder of one component, or a file of weights")
    weights, _ = component_weights(path, path.name)
    return _joined(path, {file.name: read_weights(file) for file in weights})


def inspect_shards(path: Path, headers: Mapping[str, WeightsHeader]) -> FileFacts:
    """Inspect a component's folder that has only its small files yet, by the headers of its weights.

    Raises `ModelError`, also where an index places tensors elsewhere than they are.
    """
    check_shards(path, path.name, {name: header.tensors for name, header in headers.items()})
    return _joined(path, headers)


def _joined(path: Path, headers: Mapping[str, WeightsHeader]) -> FileFacts:
    configuration = read_json(path / "config.json", "no configuration")
    tensors = {name: tensor for header in headers.values() for name, tensor in header.tensors.items()}
    header = WeightsHeader("safetensors", tensors, next(iter(headers.values())).metadata)
    return inspect_header(path, header, configuration, (path / "config.json", *(path / name for name in headers)))


def _facts(
    path: Path, files: tuple[Path, ...], header: WeightsHeader, class_name: str | None, quantization: str | None
) -> FileFacts:
    shapes = {name: tensor.shape for name, tensor in header.tensors.items()}
    counted: dict[str, Any] = {
        "path": path,
        "format": header.format,
        "files": files,
        "parameters": parameters(header.tensors),
        "file_bytes": tensor_bytes(header.tensors),
        "dtypes": dtypes(header.tensors),
    }
    if not is_ip_adapter(shapes) and (lora := detect_lora(header.tensors, header.metadata)):
        prediction, zero_snr = prediction_markers((), header.metadata)
        counted |= {"prediction_type": prediction, "zero_snr": zero_snr}
        return FileFacts(kind="lora", label=_label(lora), **asdict(lora), **counted)
    found = detect(shapes)
    if len({denoiser.label if denoiser.family is None else denoiser.family for denoiser in found}) > 1:
        raise ModelError(f"{path.name}: mixes families: holds the keys of {found[0].label} and of {found[1].label}")
    if found and found[0].family is None:
        raise ModelError(f"{path.name}: is {found[0].label}, which is not run here from a file")
    if found:
        return _denoiser(header, found[0], class_name, quantization, counted)
    if adapter := detect_adapter(shapes, class_name):
        return FileFacts(quantization=quantization, **asdict(adapter), **counted)
    architecture = header.metadata.get("general.architecture")
    said = f" (architecture {architecture!r})" if architecture else ""
    raise ModelError(f"{path.name}: is of no family that is known here{said}; its tensors are {sample_of(shapes)}")


def _denoiser(
    header: WeightsHeader, known: Denoiser, class_name: str | None, quantization: str | None, counted: dict[str, Any]
) -> FileFacts:
    family = FAMILIES[known.family or ""]
    parts = split(header.tensors, family.name, family.denoiser)
    classes = {family.denoiser: class_name or family.denoiser_class, **CLASSES.get(family.name, {})}
    components = tuple(
        Component(
            name,
            classes.get(name, ""),
            parameters(tensors),
            tensor_bytes(tensors),
            next(iter(dtypes(tensors)), None),
            counted["files"],
            quantization if name == family.denoiser else None,
        )
        for name, tensors in parts.items()
    )
    full = all(name in parts for name in family.parameters if name not in OPTIONAL)
    prediction, zero_snr = prediction_markers(header.tensors, header.metadata)
    # What belongs to no component, such as training averages, does not count.
    of_components = {
        "parameters": sum(component.parameters for component in components),
        "file_bytes": sum(component.file_bytes for component in components),
    }
    return FileFacts(
        kind="checkpoint" if full else "denoiser",
        families=(family.name,),
        label=known.label,
        layout=known.layout,
        prefix=known.prefix,
        class_name=classes[family.denoiser],
        quantization=quantization,
        prediction_type=None if family.flow_matching else prediction,
        zero_snr=zero_snr and not family.flow_matching,
        guidance_embedded=known.guidance_embedded,
        blocks=known.blocks,
        attention_width=known.attention_width,
        components=components,
        notes=known.notes,
        **{**counted, **of_components},
    )


def _label(lora: Lora) -> str:
    named = " or ".join(FAMILIES[family].label for family in lora.families)
    if lora.families == ("sd15",) and lora.attention_width == 1024:
        named = "Stable Diffusion 2.x"
    return f"{lora.network} for {named or 'a family that is not known here'}"


def _quantization(header: WeightsHeader) -> str | None:
    """How a file's weights are quantised, None where they are plain numbers of 16 or 32 bits."""
    if header.format == "gguf":
        return quantization_name(header)
    names: Mapping[str, TensorInfo] = header.tensors
    for kind in ("nf4", "fp4"):
        if any(name.endswith(f".quant_state.bitsandbytes__{kind}") for name in names):
            return f"bitsandbytes {kind}"
    if any(name.endswith(".SCB") for name in names):
        return "bitsandbytes int8"
    if any(name.endswith((".wscales", ".smooth_factor")) for name in names):
        return "SVDQuant"
    if "scaled_fp8" in names or any(name.endswith((".scale_weight", ".weight_scale")) for name in names):
        return "scaled float8"
    return "float8" if next(iter(dtypes(names)), "").startswith("float8") else None
