"""Asks on the terminal about every distinct choice, before it is used (`selection.mode=assisted`)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from jobs.terminal import aligned, one_line, print_line, print_lines
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from jobs.planning.choosing import Decision

KEYS = "[Enter] accept   [a] accept all   [c] change the model   [d] drop LoRAs   [q] quit"


class Assistant:
    """Asks until everything is accepted."""

    def __init__(self, read: Callable[[str], str] = input) -> None:
        self._read = read
        self._accepts_all = False

    def decide(self, choice: dict[str, Any], prompts: Sequence[str], others: Sequence[str]) -> Decision:
        """The answer about a choice (`Choice.to_json`) for these prompts; `others` are models to change to.

        Raises `ConfigError` where there is no terminal to ask on, and KeyboardInterrupt where the user quits, or nobody
        can answer any more.
        """
        from jobs.planning.choosing import Decision  # loaded already where something is chosen

        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise ConfigError(
                "selection.mode: assisted asks on a terminal, and this is none; use selection.accept=true to accept "
                "every choice, or selection=auto"
            )
        if self._accepts_all:
            return Decision()
        self._show(choice, prompts)
        while True:
            match self._ask(f"{KEYS}: ").lower():
                case "" | "y":
                    return Decision()
                case "a":
                    self._accepts_all = True
                    return Decision()
                case "c" if others:
                    if name := self._one_of(others, "model"):
                        return Decision(model=name)
                case "c":
                    print_line("there is no other model here that could be taken")
                case "d" if choice["loras"]:
                    names = [lora["chosen"] for lora in choice["loras"]]
                    if name := names[0] if len(names) == 1 else self._one_of(names, "LoRA"):
                        return Decision(dropped=(name,))
                case "d":
                    print_line("no LoRA is chosen")
                case "q":
                    raise KeyboardInterrupt
                case _:
                    continue

    def _ask(self, question: str) -> str:
        try:
            return self._read(question).strip()
        except EOFError:
            raise KeyboardInterrupt from None

    def _one_of(self, names: Sequence[str], noun: str) -> str | None:
        for number, name in enumerate(names, 1):
            print_line(f"  {number}  {one_line(name)}")
        answer = self._ask(f"which {noun}? (1 to {len(names)}, Enter for none): ")
        return names[int(answer) - 1] if answer.isdecimal() and 1 <= int(answer) <= len(names) else None

    def _show(self, choice: dict[str, Any], prompts: Sequence[str]) -> None:
        more = f" and {len(prompts) - 1} more" if len(prompts) > 1 else ""
        print_line(f"\nfor {one_line(prompts[0])[:100]!r}{more}")
        model, runner_up = choice["model"], choice["model"]["runner_up"]
        rows = [("", "chosen", "runner-up", "because")]
        why = "; ".join(reason["words"] for reason in model["reasons"])
        rows.append(("model", model["chosen"], runner_up["name"] if runner_up else "-", why or "-"))
        for lora in choice["loras"]:
            why = "; ".join(reason["words"] for reason in lora["reasons"])
            rows.append(("LoRA", f"{lora['chosen']} x {lora['weight']:g}", "-", why or "-"))
        settings = ", ".join(f"{name} {one['value']}" for name, one in choice["sampling"].items())
        rows.append(("settings", settings or "the model's own", "-", "-"))
        for name in ("prompt", "negative_prompt"):
            if added := choice[name]["added"]:
                rows.append((name.replace("_", " "), f"adds {', '.join(added)}", "-", "-"))
        print_lines(aligned(rows))
