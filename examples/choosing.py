"""Let a prompt choose, help it choose, or choose yourself.

darkroom models scan /models              # once, so that there is something to choose from
python examples/choosing.py
python examples/choosing.py "un faro en la tormenta, óleo"
"""

import os
import subprocess
import sys

from pipeline import Pipeline

PROMPT = sys.argv[1] if len(sys.argv) > 1 else "a lighthouse in a storm, oil painting"

# Auto: model, LoRAs, negative prompt and settings suit the prompt. `explain` makes nothing, and says why.
with Pipeline.auto() as pipeline:
    explanation = pipeline.explain(PROMPT)
    print(f"auto: {explanation}\n")
    # What is set is never chosen.
    picture = pipeline.generate(PROMPT, steps=2, width=64, height=64)
    request = picture.image.request
    print(f"made by {request.model.name} in {request.steps} steps: {picture.save('outputs/choosing')}\n")
    # One word less, one model less: what would it be then?
    runner_up = explanation.choice.model.runner_up
    if runner_up:
        without = Pipeline.auto(exclude=[explanation.choice.model.chosen]).explain(PROMPT)
        print(f"without {explanation.choice.model.chosen}: {without.choice.model.chosen}\n")

# Assisted: a run shows each choice on the terminal, and waits for keys. Here a script types them: `c` and `1` change
# the model, where there is another one, Enter accepts.
print("assisted:", flush=True)
ours, theirs = os.openpty()
os.write(ours, b"c\n1\n\n" if runner_up else b"\n")
command = ["run", "selection=assisted", f"prompt={PROMPT}", "dry_run=true", "output.dir=outputs/choosing"]
with subprocess.Popen([sys.executable, "-m", "jobs", *command], stdin=theirs, stdout=theirs, stderr=theirs):
    os.close(theirs)
    while True:
        try:
            print(os.read(ours, 4096).decode(errors="replace").replace("\r", ""), end="")
        except OSError:  # the run has ended
            break

# Manual: name the model, and nothing is chosen.
with Pipeline("demo") as pipeline:
    picture = pipeline.generate("a red house in hills at sunset", steps=8)
print(f"\nmanual: made by {picture.image.request.model.name}; chosen: {picture.choice}")
