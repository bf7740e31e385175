"""Search the hubs, fetch from them, and let a run fetch what it lacks. Everything is checked by its SHA-256.

    python tests/hub_server.py 8000           # a hub on this machine with tiny models; it prints its two hub.* settings
    python examples/downloading.py tiny civitai:102 hf:tiny/demo hub.huggingface_url=... hub.civitai_url=...

Without the two settings it asks Hugging Face and CivitAI:

    python examples/downloading.py WORDS LORA MODEL
"""

import subprocess
import sys

if len(sys.argv) < 4:
    sys.exit(__doc__)
WORDS, LORA, MODEL, *HUBS = sys.argv[1:]


def darkroom(*arguments: str) -> None:
    """A command of Darkroom, as in a shell: shown, then run."""
    print(f"\n$ darkroom {' '.join(arguments)}", flush=True)
    subprocess.run([sys.executable, "-m", "jobs", *arguments, *HUBS], check=True)


# Nothing but these words leaves the machine: no account, no cookie, no name.
darkroom("models", "search", WORDS)

# A reference names a thing for good; broken downloads go on where they stopped.
darkroom("models", "download", LORA)

# A run fetches nothing by itself. With `hub.auto_download` it may: first the dry run says what that would be.
run = ["run", "prompt=a house", "model=custom", f"model.source={MODEL}", "hub.auto_download=true", "sampling.steps=4"]
darkroom(*run, "output.dir=outputs/downloading", "dry_run=true")
darkroom(*run, "output.dir=outputs/downloading")

# What was fetched is known by its reference, its name and its hash, and is never fetched again.
HUBS.clear()
darkroom("models", "list")
