"""Planted secrets are found wherever they stand; honest prompts and every login name pass."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from pipeline.errors import JobFailure, LeakFound
from pipeline.metadata.exif import user_comment
from pipeline.metadata.leaks import PersonalWords, own_words, refusal, scan, scrub
from pipeline.metadata.png import chunk, insert_chunks, international_text_chunk, text_chunk

ANNA = PersonalWords(home="/home/annak", working_folder="/srv/jobs/blue", user="annak", host="falcon-7")
FORMATS = ["png", "jpeg", "webp"]
SECRETS = {
    "the home folder": "/home/annak/models/x",
    "the path of a user's folder": "/home/somebody/x",
    "macOS": "/Users/somebody/Pictures",
    "windows": "C:\\Users\\Somebody\\Pictures",
    "windows, other slashes": "d:/users/somebody/x",
    "the working folder": "/srv/jobs/blue",
    "a hugging face token": "hf_" + "aB3" * 11,
    "a sk key": "sk-proj-" + "a1B2" * 8,
    "a aws key": "AKIA" + "ABCD2345" * 2,
    "a github token": "ghp_" + "a1B2" * 9,
    "a google key": "AIza" + "a1B2_" * 7,
    "a json web token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc",
    "a bearer token": "Authorization: Bearer abcdef0123456789abcdef",
    "a private key": "-----BEGIN RSA PRIVATE KEY-----",
}


def check(made: Any, identity: PersonalWords = ANNA, words: tuple[str, ...] | None = None) -> None:
    encoded = made.encode()
    scan(encoded.data, own_words=own_words(made.record) if words is None else words, identity=identity)
    if encoded.sidecar is not None:
        scan(encoded.sidecar, own_words=own_words(made.record), identity=identity)


@pytest.mark.parametrize("output_format", FORMATS)
@pytest.mark.parametrize("kind", SECRETS)
def test_secrets_in_a_prompt_fail_the_job(sample: Callable[..., Any], output_format: str, kind: str) -> None:
    with pytest.raises(LeakFound) as caught:
        check(sample(f"a house, {SECRETS[kind]} at night", output_format=output_format))
    message = str(caught.value)
    assert SECRETS[kind] not in message and "\n" not in message
    assert isinstance(caught.value, JobFailure) and caught.value.kind == "leak"
    if kind.startswith(("a ", "the ")):
        assert kind in message


@pytest.mark.parametrize("output_format", FORMATS)
def test_secrets_are_found_with_the_prompt_hidden_from_the_views(
    sample: Callable[..., Any], output_format: str
) -> None:
    with pytest.raises(LeakFound):
        check(sample("/home/annak/x", output_format=output_format, profile="minimal"))


ENCODINGS: dict[str, Callable[[str], bytes]] = {
    "utf-8": lambda text: text.encode(),
    "utf-16-be": lambda text: text.encode("utf-16-be"),
    "utf-16-le": lambda text: text.encode("utf-16-le"),
    "url": lambda text: quote(text, safe="").encode(),
    "url twice": lambda text: quote(quote(text, safe=""), safe="").encode(),
    "json": lambda text: json.dumps(text).encode(),
    "json in json": lambda text: json.dumps(json.dumps(text)).encode(),
    "json escapes": lambda text: "".join(f"\\u{ord(c):04x}" for c in text).encode(),
    "xml": lambda text: "".join(f"&#x{ord(c):x};" for c in text).encode(),
    "file url": lambda text: b"file://" + text.encode(),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("kind", [kind for kind in SECRETS if kind != "a bearer token"])
def test_secrets_are_found_in_every_encoding_and_at_odd_places(
    sample: Callable[..., Any], encoding: str, kind: str
) -> None:
    secret = ENCODINGS[encoding](SECRETS[kind])
    data = sample().encode().data
    for start in (b"x\x00", b"xy\x00"):
        planted = insert_chunks(data, [chunk(b"tEXt", b"note" + start + b"= " + secret)])
        with pytest.raises(LeakFound, match="tEXt"):
            scan(planted, own_words=(), identity=ANNA)
    with pytest.raises(LeakFound, match="trailer"):
        scan(data + secret, own_words=(), identity=ANNA)


@pytest.mark.parametrize("name", ["annak", "ANNAK", "falcon-7"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-be", "utf-16-le", "json escapes", "url"])
def test_login_and_host_names_are_found_as_whole_words(sample: Callable[..., Any], name: str, encoding: str) -> None:
    data = sample().encode().data
    planted = insert_chunks(data, [chunk(b"tEXt", b"Author\x00by " + ENCODINGS[encoding](name))])
    with pytest.raises(LeakFound, match=r"the (login|host) name .*tEXt Author"):
        scan(planted, own_words=("a house",), identity=ANNA)
    inside = insert_chunks(data, [text_chunk("note", f"x{name}x and {name}s")])
    scan(inside, own_words=(), identity=ANNA)


def test_the_names_are_allowed_in_the_users_own_texts_but_not_in_paths(sample: Callable[..., Any]) -> None:
    check(sample("portrait of Annak, a falcon-7 in the sky"))
    check(sample(name="annak", tags=("falcon-7",)))
    check(sample(model="annak"))
    for path in ("/mnt/annak/models", "\\\\server\\annak", "D:\\work\\annak\\x", "/falcon-7/x"):
        with pytest.raises(LeakFound, match="a path with"):
            check(sample(f"see {path} there"))


@pytest.mark.parametrize("output_format", FORMATS)
@pytest.mark.parametrize(
    ("user", "home"),
    [
        ("root", "/root"),
        ("user", "/home/user"),
        ("tree", "/home/tree"),
        ("seed", "/home/seed"),
        ("euler", "/home/euler"),
        ("cpu", "/"),
        ("rdf", "/data"),
        ("demo", "/home/demo"),
        ("a", ""),
        ("", "/app"),
        ("iptc", "/std"),
        ("torch", "/opt/torch"),
        ("nvidia", "/home/nvidia"),
    ],
)
def test_any_login_can_make_honest_pictures(
    sample: Callable[..., Any], output_format: str, user: str, home: str
) -> None:
    identity = PersonalWords(home=home, working_folder="/", user=user, host=user or "localhost")
    for prompt in (
        "a tree root",
        "root, and/or roots; home/garden, c:\\ art, d: drive, and a user at home",
        "www.example.org/home/page of a house, ratio 16:9, 50% sale, \\o/ & <b>",
        "the ring bearer extraordinarily long, a desk-sized sk-style, task-oriented thing",
        "tokens hf_ and eyJ and AKIA, /home, /Users, C:\\Windows\\Fonts, ~/x",
        "日本語の猫 🐈 at home",
    ):
        check(sample(prompt, prompt, output_format=output_format, tags=("root",)), identity)


@pytest.mark.parametrize("output_format", FORMATS)
def test_private_images_pass(sample: Callable[..., Any], output_format: str) -> None:
    check(sample("annak in /home/annak", output_format=output_format, profile="private"))


def test_sidecars_are_searched(sample: Callable[..., Any]) -> None:
    made = sample(settings={"sidecar": True})
    check(made)
    with pytest.raises(LeakFound):
        scan(b'{"prompt": "/home/annak"}', own_words=(), identity=ANNA)


def test_compressed_text_is_refused_unseen(sample: Callable[..., Any]) -> None:
    data = sample().encode().data
    for hidden in (
        chunk(b"zTXt", b"note\x00\x00x"),
        chunk(b"iTXt", b"note\x00\x01\x00\x00\x00x"),
        chunk(b"iCCP", b"p\x00\x00x"),
    ):
        with pytest.raises(LeakFound, match="compressed"):
            scan(insert_chunks(data, [hidden]), own_words=(), identity=ANNA)


def test_unknown_chunks_are_searched_and_pixels_are_not(sample: Callable[..., Any]) -> None:
    data = sample().encode().data
    with pytest.raises(LeakFound, match="prVt"):
        scan(insert_chunks(data, [chunk(b"prVt", b"/home/annak/x")]), own_words=(), identity=ANNA)
    scan(insert_chunks(data, [chunk(b"IDAT", b"annak falcon-7")]), own_words=(), identity=ANNA)


def test_user_comment_in_a_chunk_of_its_own(sample: Callable[..., Any]) -> None:
    data = sample().encode().data
    planted = insert_chunks(data, [chunk(b"eXIf", b"MM\x00*x" + user_comment("by annak"))])
    with pytest.raises(LeakFound, match="login name"):
        scan(planted, own_words=(), identity=ANNA)


def test_this_machine_is_known_and_its_own_pictures_pass(sample: Callable[..., Any]) -> None:
    made = sample("a tree root in the hills")
    assert PersonalWords.of_this_process().working_folder
    scan(made.encode().data, own_words=own_words(made.record))


def test_text_that_only_looks_like_escapes_is_harmless(sample: Callable[..., Any]) -> None:
    check(sample("100% \\u00zz \\ud83d &notanentity; %zz \\"))
    noise = international_text_chunk("note", "\ufffe\uffff" + "\\u0000" * 50)
    scan(insert_chunks(sample().encode().data, [noise]), own_words=(), identity=ANNA)


HIDDEN = {
    "windows": r"a house, C:\Users\bob\x.png",
    "url": "a house, %2Fhome%2Fbob%2Fx",
    "url twice": "a house, %252Fhome%252Fbob%252Fx",
    "xml": "a house, &#47;home&#47;bob",
    "json": "a house, \\u002fhome\\u002fbob",
    "slashes": "a house, //home//bob",
    "key": "a house, hf%5F" + "aB3" * 11,
}


@pytest.mark.parametrize("text", HIDDEN.values(), ids=HIDDEN.keys())
def test_what_is_refused_is_nowhere_kept_in_any_form(text: str) -> None:
    """The same forms are removed from rows and reports as are searched for before an image is made."""
    assert refusal([text])
    clean = scrub(text)
    assert clean.startswith("a house, ") and "bob" not in clean and "aB3aB3" not in clean
    assert refusal([clean]) is None


@pytest.mark.parametrize(
    "text", ["a house, 50% off, &amp; a boat", r"a \(red\) house", "see example.org/home/page", ""]
)
def test_other_texts_are_kept_as_they_stand(text: str) -> None:
    assert refusal([text]) is None
    assert scrub(text) == text
