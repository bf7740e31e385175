"""A picture from nothing but a prompt, in five lines: what suits it is chosen, and the last line says why."""

from pipeline import Pipeline

with Pipeline.auto() as pipeline:
    picture = pipeline.generate("a red house in hills at sunset", seed=7)
print(picture.save("outputs", naming="descriptive"))
print(picture.explanation)
