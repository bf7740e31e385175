"""Naming images, groups of picks, the queue, removing what was rejected, and what is learned from an output folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from manifest_rows import done_of, put_image, write_part
from recorded_images import save_image

from jobs.archive import rating_queue
from jobs.archive.feedback import group_of, last_pick, pick, rejected_images, remove
from jobs.archive.learned import learned
from jobs.archive.named_images import NamedImage, named_images
from jobs.archive.rating_queue import RatingQueue
from jobs.archive.reindex import reindex
from jobs.archive.verify import verify
from jobs.manifest import preferences
from jobs.manifest.journal import Journal
from jobs.manifest.preferences import read_preferences, read_rated
from jobs.manifest.ratings import RatingWriter
from jobs.manifest.ratings_events import RatingEvent
from jobs.manifest.ratings_view import read_feedback
from jobs.manifest.schema import Row
from pipeline.errors import ConfigError, ReadError
from pipeline.learning.kept_preferences import keep
from pipeline.learning.preferences import NO_PREFERENCES, Preferences, Statistic
from pipeline.learning.rated_pictures import LORA, MODEL


def say(output_dir: Path, *events: RatingEvent) -> None:
    with RatingWriter(output_dir) as writer:
        writer.append(events)


@pytest.fixture(autouse=True)
def two_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (preferences, rating_queue):
        monkeypatch.setattr(module, "look_by_rules", lambda prompt: "oil" if "oil" in prompt else "plain")


def made(output_dir: Path, *rows: Row) -> list[NamedImage]:
    for row in rows:
        put_image(output_dir, row)
    write_part(output_dir, "a", rows)
    return [NamedImage(str(row["image_id"]), row["job_id"], str(row["path"])) for row in rows]


@pytest.fixture
def saved(tmp_path: Path) -> list[Row]:
    """Three real images, the last one private, a sidecar beside the first and a stranger's file beside the next."""
    with Journal(tmp_path) as journal:
        rows = [save_image(journal, tmp_path, n, profile="private" if n == 2 else "full") for n in range(3)]
    (tmp_path / "study/0000.json").write_text(json.dumps({"id": rows[0]["image_id"]}))
    (tmp_path / "study/0001.json").write_text(json.dumps({"id": "mine"}))
    return rows


def test_images_are_named_by_path_id_or_first_digits(
    tmp_path: Path, saved: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [str(row["image_id"]) for row in saved]
    (tmp_path / "study/0001.png").rename(tmp_path / "moved.png")
    (tmp_path / "study/0002.png").rename(tmp_path / "private.png")
    monkeypatch.chdir(tmp_path)
    named = ["study/0000.png", ids[0], "moved.png", str(tmp_path / "private.png"), ids[2][:8].upper(), "study/0001.png"]
    assert [image.image_id for image in named_images(named, Path())] == ids
    monkeypatch.chdir(tmp_path.parent)
    assert [image.path for image in named_images(["study/0000.png"], tmp_path)] == ["study/0000.png"]


def test_every_wrong_name_is_a_line(tmp_path: Path) -> None:
    same = [done_of(n, image_id=f"a3f2e9d4-0000-4000-8000-00000000000{n}") for n in range(2)]
    made(tmp_path, *same)
    (tmp_path / "text.png").write_text("no image")
    named = ["a3f2e9d4", "ffffffff", "nowhere.png", str(tmp_path / "text.png"), "../../etc/passwd", "'; DROP"]
    with pytest.raises(ConfigError) as error:
        named_images(named, tmp_path)
    assert len(error.value.faults) == len(named)
    assert "2 images begin so" in str(error.value) and "first 8 digits" in str(error.value)
    with pytest.raises(ReadError, match="no manifest here"):
        named_images(["a3f2e9d4"], tmp_path / "empty")


def test_a_group_is_of_one_prompt_or_of_one_cell(tmp_path: Path) -> None:
    prompts = ["a boat", "a boat", "a boat", "a house"]
    steps = [8, 8, 20, 8]
    rows = [done_of(n, prompt=prompt, steps=step) for n, (prompt, step) in enumerate(zip(prompts, steps, strict=True))]
    rows[0]["controlnet_strengths"] = []  # as new rows have it; the others are older
    rows.append(done_of(4, prompt="a boat", strength=0.5))
    one, two, three, _, five = made(tmp_path, *rows)
    assert set(group_of(one, "prompt", tmp_path)) == {two.image_id, three.image_id, five.image_id}
    assert group_of(one, "cell", tmp_path) == [two.image_id]
    say(tmp_path, RatingEvent(two.image_id, "reject", "yes"), RatingEvent(two.image_id, "removed", two.job_id))
    assert group_of(one, "cell", tmp_path) == []
    say(tmp_path, pick(one, "prompt", tmp_path))
    say(tmp_path, pick(three, "prompt", tmp_path))
    assert [read_feedback(tmp_path)[image.image_id]["picked"] for image in (one, three)] == [False, True]
    say(tmp_path, RatingEvent(three.image_id, "undo", last_pick(three, tmp_path)))
    assert [read_feedback(tmp_path)[image.image_id]["picked"] for image in (one, three)] == [True, False]
    with pytest.raises(ConfigError, match="was not picked"):
        last_pick(three, tmp_path)


def test_the_queue_asks_first_for_what_is_least_known(tmp_path: Path) -> None:
    rows = [
        done_of(n, model=model, prompt=prompt)
        for n, (model, prompt) in enumerate(
            [("known", "oil"), ("known", "oil"), ("known", "ink"), ("new", "oil"), ("known", "oil")]
        )
    ]
    images = made(tmp_path, *rows)
    say(tmp_path, RatingEvent(images[0].image_id, "rating", "4"), RatingEvent(images[1].image_id, "reject", "yes"))
    queue = RatingQueue(tmp_path)
    assert len(queue) == 3
    assert [row["path"] for row in queue] == ["study/0003.png", "study/0002.png", "study/0004.png"]
    (tmp_path / "study/0003.png").unlink()
    assert [row["path"] for row in RatingQueue(tmp_path, "oil", "model <> 'x'")] == ["study/0004.png"]


def test_rejected_images_are_removed_with_their_own_sidecars(tmp_path: Path, saved: list[Row]) -> None:
    say(tmp_path, *(RatingEvent(str(row["image_id"]), "reject", "yes") for row in saved))
    (tmp_path / "study/0002.png").write_bytes(b"edited since")
    others: list[str] = []
    rejected = list(rejected_images(tmp_path, others))
    assert len(others) == 1 and "not the file that was saved" in others[0]
    remove(rejected, tmp_path)
    assert sorted(path.name for path in (tmp_path / "study").iterdir()) == ["0001.json", "0002.png"]
    assert list(rejected_images(tmp_path, [])) == []
    result = verify(tmp_path)
    assert (result.missing, result.removed) == ((), ("study/0000.png", "study/0001.png"))
    reindex(tmp_path)
    assert verify(tmp_path).removed == ("study/0000.png", "study/0001.png")


def test_what_a_manifest_of_a_stranger_names_is_not_deleted(tmp_path: Path) -> None:
    (outside := tmp_path / "mine.png").write_bytes(b"image 1 " * 100)
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs/study").symlink_to(tmp_path)
    row = done_of(1, path="study/mine.png")
    write_part(tmp_path / "outputs", "a", [row])
    say(tmp_path / "outputs", RatingEvent(str(row["image_id"]), "reject", "yes"))
    assert list(rejected_images(tmp_path / "outputs", [])) == [] and outside.exists()


def test_nothing_is_learned_where_nobody_rated(tmp_path: Path) -> None:
    made(tmp_path, done_of(1))
    assert read_preferences(tmp_path) is NO_PREFERENCES
    say(tmp_path, RatingEvent("a" * 8, "tag", "x"))
    assert not learned(tmp_path).preferences


def test_ratings_move_the_models_of_their_look(tmp_path: Path) -> None:
    models = ["good", "bad"] * 6
    rows = [done_of(n, model=model, prompt="oil" if n < 8 else "photo") for n, model in enumerate(models)]
    images = made(tmp_path, *rows)
    stars = [5, 2] * 4 + [3, 3] * 2
    say(
        tmp_path,
        *(RatingEvent(image.image_id, "rating", str(given)) for image, given in zip(images, stars, strict=True)),
    )
    found = learned(tmp_path)
    effects = {(one.kind, one.name, one.look): one.effect for one in found.effects}
    assert found.pictures == 12
    assert effects[MODEL, "good", "oil"] > 0.3 and effects[MODEL, "bad", "oil"] < -0.3
    assert effects[MODEL, "good", "plain"] < effects[MODEL, "good", "oil"]
    hash = found.preferences.hash
    assert learned(tmp_path).preferences.hash == hash
    say(tmp_path, RatingEvent(images[0].image_id, "rating", "1"))
    assert learned(tmp_path).preferences.hash != hash
    say(tmp_path, RatingEvent("", "reset"))
    assert not learned(tmp_path).preferences
    say(tmp_path, RatingEvent(images[0].image_id, "rating", "4"))
    assert learned(tmp_path).pictures == 1


def test_picks_compare_models_and_rejections_count(tmp_path: Path) -> None:
    images = made(tmp_path, *(done_of(n, model=f"m{n}", prompt="a boat") for n in range(3)))
    say(tmp_path, RatingEvent(images[1].image_id, "rating", "5"), RatingEvent(images[2].image_id, "rating", "3"))
    say(tmp_path, pick(images[0], "prompt", tmp_path))
    picked = read_rated(tmp_path)[-1]
    lost = {one.shares[0][1]: one for one in read_rated(tmp_path)}
    assert {name: one.verdict for name, one in lost.items()} == {"m0": 1, "m1": -0.5, "m2": -0.5}
    assert picked.group_mean == 4, "of the stars in the group"
    say(tmp_path, RatingEvent(images[2].image_id, "reject", "yes"))
    assert read_rated(tmp_path)[-1].verdict == -1


def selection(*, score: float = 3.0, **parts: object) -> str:
    text = {"text": "", "own": "oil"}
    choice: dict[str, object] = {
        "model": {"chosen": "demo", "score": score, "source": "rule"},
        "loras": [{"chosen": "ink", "weight": 0.8, "score": 1.0}],
        "prompt": text,
        "negative_prompt": text,
    }
    return json.dumps({"key": "0" * 64, "statistics": None, "analysis": None, "choice": choice} | parts)


def test_what_was_chosen_is_read_as_far_as_it_is_what_it_should_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_HOME", str(tmp_path / "home"))
    before = Preferences((Statistic(MODEL, "demo", "anime", 100, 100),))
    keep(before)
    analysis = {"style": ["nothing", "anime"], "medium": ["oil"]}
    asked = {**json.loads(selection())["choice"], "model": {"chosen": "demo", "score": 9, "source": "asked"}}
    right = [
        selection(),
        selection(analysis=analysis, statistics=before.hash),
        selection(analysis=analysis, statistics="1" * 64),
        selection(choice=asked, analysis={"style": "anime", "medium": 1}),
    ]
    wrong = ["[]", "{", '{"choice": []}', selection(choice={"model": {"score": "NaN"}}), "[" * 100_000]
    rows = [
        done_of(n, selection=text, model="demo", loras=["ink"], lora_weights=[1.0])
        for n, text in enumerate([*right, *wrong])
    ]
    images = made(tmp_path, *rows)
    say(tmp_path, *(RatingEvent(image.image_id, "rating", "4") for image in images))
    plain, learned_too, unknown, by_hand, *others = read_rated(tmp_path)
    assert (plain.score, plain.look) == (3.0, "oil")
    assert {kind: share for kind, _, share in plain.shares} == {MODEL: 0.75, LORA: 0.25}
    effect = before.effect(MODEL, "demo", "anime")
    assert effect > 0.5 and learned_too.look == "anime" and learned_too.score == pytest.approx(3.0 - effect)
    assert (unknown.score, unknown.look) == (None, "anime"), "what had been learned then is not known here"
    assert (by_hand.score, by_hand.look) == (None, "plain")
    assert len(others) == len(wrong)
    assert all(one.score is None and one.look == "plain" and one.shares[0][2] == 0.5 for one in others)
