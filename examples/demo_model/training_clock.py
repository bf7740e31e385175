"""How long to train, at which rate, and how to go on after an interruption: one clock for both stages."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

CHECKPOINT_EVERY_S = 120.0
REPORT_EVERY_S = 30.0


class Clock:
    """Counts steps and seconds of one stage, and keeps its checkpoint.

    `parts` are the things with `state_dict` and `load_state_dict` that a checkpoint holds. Time spent
    before an interruption counts, so that a resumed stage ends with its rate decayed as planned.
    """

    def __init__(self, path: Path, minutes: float, parts: dict[str, Any]) -> None:
        self.path, self.budget_s, self.parts = path, minutes * 60, parts
        self.steps, self.elapsed_s, self.mean_error = 0, 0.0, 0.0
        self._began = self._saved = self._reported = time.monotonic()
        self._before_s = 0.0

    def resume(self) -> None:
        """Load the checkpoint, where there is one."""
        import torch

        if self.path.is_file():
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            for name, part in self.parts.items():
                part.load_state_dict(state[name])
            self.steps, self.mean_error = state["steps"], state["mean_error"]
            self.elapsed_s = self._before_s = state["elapsed_s"]
            print(f"{self.path.name}: going on from step {self.steps}", flush=True)

    def running(self) -> bool:
        """Tell whether time is left."""
        return self.elapsed_s < self.budget_s

    def rate(self) -> float:
        """Return the learning rate's factor: 200 steps of warm-up, then a cosine to 1 % at the end."""
        warmth = min(1.0, (self.steps + 1) / 200)
        return warmth * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, self.elapsed_s / self.budget_s))))

    def step(self, name: str, error: float) -> None:
        """Count one step; now and then print the running average of `error` and save a checkpoint."""
        now = time.monotonic()
        self.mean_error = error if self.steps == 0 else 0.99 * self.mean_error + 0.01 * error
        self.steps += 1
        self.elapsed_s = self._before_s + now - self._began
        if now - self._reported > REPORT_EVERY_S:
            self._reported = now
            status = f"step {self.steps}: {name} {self.mean_error:.4f}"
            print(f"{self.elapsed_s / 60:5.1f} min, {status}", flush=True)
        if now - self._saved > CHECKPOINT_EVERY_S:
            self.save()

    def save(self) -> None:
        """Write the checkpoint; the one before stays whole until the new one is."""
        import torch

        self._saved = time.monotonic()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        state: dict[str, Any] = {name: part.state_dict() for name, part in self.parts.items()}
        state |= {"steps": self.steps, "elapsed_s": self.elapsed_s, "mean_error": self.mean_error}
        temporary = self.path.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.replace(self.path)
