"""What a configuration asks of memory, checked against the model that it is for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.planning.validation import validate
from pipeline.errors import ConfigError


def test_float16_is_refused_for_weights_that_would_leave_its_range(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "stored"
    shutil.copytree(tiny("flux"), folder)
    config = folder / "transformer" / "config.json"
    said = {"quant_method": "torchao", "quant_type": "int8_weight_only"}
    config.write_text(json.dumps(json.loads(config.read_text()) | {"quantization_config": said}))
    batch = {
        "prompts": {"lines": ["a house"]},
        "model": {"source": str(folder)},
        "memory": {"level": "auto", "dtype": "float16"},
        "engine": {"device": "cpu"},
        "output": {"dir": str(tmp_path / "out")},
    }
    with pytest.raises(ConfigError) as caught:
        validate([batch], [])
    assert [str(fault) for fault in caught.value.faults] == [
        "memory.dtype: transformer, stored as torchao int8, leaves float16's range and would come out black; "
        "take bfloat16 or float32, or leave it at auto"
    ]
