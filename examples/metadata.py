"""What a picture's file tells: its recipe, its name, a sidecar, and what stays private."""

from PIL import Image

from pipeline import Pipeline, ReadError, read_record

OUT = "outputs/metadata"

with Pipeline("demo") as pipeline:
    picture = pipeline.generate("a yellow boat by the sea, at sunset", seed=11, steps=8)

# The whole recipe is in the file, whatever its format, and can be read back.
for format in ("png", "jpeg", "webp"):
    path = picture.save(OUT, format=format, name="boats", tags=["boat", "sunset"])
    record = read_record(path)
    print(f"{path.name}: seed {record.seed}, {record.steps} steps, {record.model.name}, tags {record.job.tags}")

# Names: by time, with an excerpt of the prompt, by a random id alone (no time, no prompt), or put together.
print()
for naming in ("standard", "descriptive", "guid", "custom"):
    print(f"{naming:12} {picture.save(OUT, naming=naming).name}")

# A sidecar is the same recipe as a JSON file beside the picture, for programs that read no metadata.
path = picture.save(OUT, sidecar=True)
sidecar = next(path.parent.glob(f"{path.stem}*.json"))
print(f"\n{sidecar.name}: {sidecar.read_text(encoding='utf-8')[:60]}...")

# What other programs show is the text `parameters`. `minimal` leaves the prompt out of it, and `private` everything but
# a random id out of the file.
for profile in ("full", "minimal", "private"):
    path = picture.save(OUT, metadata=profile, naming="guid")
    shown = Image.open(path).info.get("parameters", "nothing").replace("\n", " ")
    try:
        said = f"{len(read_record(path).to_json()):,} characters"
    except ReadError:
        said = "none"
    print(f"\n{profile}: record: {said}; other programs show: {shown[:60]}")
