"""A data set of people: as few prompts as show every pair of attributes, with the attributes as tags.

python examples/characters.py                                  # with the included model, which knows no people
python examples/characters.py model=auto sampling.steps=30     # any keys of a run, model=sdxl among them
"""

import subprocess
import sys

from jobs import search

OUT = "outputs/characters"
OWN = "{expression: [smiling, serious], place: [a forest, a harbour], clothing: null, build: null, hair_colour: null, \
hair_style: null, skin: null, light: null, pose: null}"


def darkroom(*arguments: str) -> None:
    """A command of Darkroom, as in a shell."""
    subprocess.run([sys.executable, "-m", "jobs", *arguments], check=True)


# Every pair of values of two attributes is in at least one prompt; a dry run counts the pairs.
print("all attributes:", flush=True)
darkroom("run", "prompts=characters", "model=demo", f"output.dir={OUT}", "dry_run=true")

# Attributes and their values are yours: a list replaces the values, null leaves an attribute out.
print("\nfewer, and two of our own:", flush=True)
keys = sys.argv[1:] or ["model=demo", "sampling.steps=1"]
darkroom("run", "prompts=characters", f"prompts.characters.attributes={OWN}", f"output.dir={OUT}", *keys)

# Each picture has what was asked for as tags: they are searched, counted and exported.
print()
seventies = "list_contains(tags, 'age:seventies')"
for row in search(OUT, where=seventies, columns=("prompt", "tags"), sort="prompt"):
    print(f"{row['prompt']}\n    {' '.join(row['tags'])}")
