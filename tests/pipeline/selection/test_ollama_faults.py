"""Every way in which Ollama is absent, slow, broken or wrong: the earlier stages' result stays, with one warning."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hub_server import Fault, HubServer, Reply, cut, drip, html_reply, instead, json_reply, promise, redirect, stall
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ollama_server import Chat, OllamaServer, Said

from pipeline.prompting.analysis import Evidence, PromptAnalysis
from pipeline.selection.ollama.answers import LlmAnswer, Offered, Question, write_answer
from pipeline.selection.ollama.kept_answers import answers_file
from pipeline.selection.ollama.settings import OllamaSettings
from pipeline.selection.ollama.understand import MOST_USELESS, Understood, understand
from pipeline.selection.ollama.wire import MOST_BYTES

pytestmark = pytest.mark.usefixtures("home")

REPO = Path(__file__).parents[3]
GOOD = write_answer(LlmAnswer({"subject": ("person",), "mood": ("calm",)}, (1, 0)))
RAIN = PromptAnalysis(weather=("rain",), evidence=(Evidence("weather", "rain", "rain", (11, 15)),))
QUESTION = Question("my aunt in rain", RAIN, (Offered("photo-xl", "photographs"), Offered("anime-mix", "drawings")))


def quiet(what: str, done: int, total: int) -> None:
    """Nobody watches."""


def ask(server: OllamaServer, *questions: Question, timeout_s: float = 10.0) -> Understood:
    return understand(questions or (QUESTION,), OllamaSettings(host=server.url, timeout_s=timeout_s), quiet)


def assert_fell_back(result: Understood, says: str) -> None:
    """What rules found is all there is, and one line tells what was wrong, without the address."""
    assert [one.analysis for one in result.prompts] == [RAIN] and not result.prompts[0].ranking
    assert len(result.warnings) == len(result.details) == 1
    assert (
        "127.0.0.1" not in result.warnings[0] and result.warnings[0].isprintable() and result.details[0].isprintable()
    )
    assert re.search(says, result.details[0]), result.details[0]
    assert len(result.details[0]) < 500


KEYS = ["models", "model", "name", "details", "parameter_size", "digest", "capabilities", "remote_host", "message",
        "content", "role", "done_reason", "error", "thinking"]  # fmt: skip

FAULTS: dict[str, tuple[str, Fault, str]] = {
    "404 for the model": ("/api/chat", instead(json_reply({"error": "model 'gemma3:4b' not found"}, 404)), "not found"),
    "503 queue full": ("/api/chat", instead(json_reply({"error": "server busy"}, 503)), "503: server busy"),
    "500 with a list": ("/api/chat", instead(json_reply(["oops"], 500)), "no answer of Ollama's"),
    "500 with nothing": ("/api/chat", instead(Reply(500)), "error 500"),
    "a schema that it refuses": ("/api/chat", instead(json_reply({"error": "invalid format"}, 500)), "invalid format"),
    "502 with a page": ("/api/chat", instead(html_reply(status=502)), "error 502: a web page"),
    "200 with a page": ("/api/chat", instead(html_reply()), "no answer of Ollama's"),
    "200 with an error": ("/api/chat", instead(json_reply({"error": "unexpected EOF"})), "no answer of Ollama's"),
    "200 with a list": ("/api/chat", instead(json_reply([1, 2])), "no answer of Ollama's"),
    "200 with null": ("/api/chat", instead(json_reply(None)), "no answer of Ollama's"),
    "JSON cut off, length right": ("/api/chat", instead(Reply(200, b'{"model": "gemma3:4b", "mess')), "no answer"),
    "a body that breaks off": ("/api/chat", cut(30), "broke off"),
    "a connection that closes at once": ("/api/chat", cut(0), "broke off"),
    "a body too large": ("/api/chat", instead(Reply(200, b"[" * (MOST_BYTES + 10))), "too large"),
    "deep JSON": ("/api/chat", instead(Reply(200, b"[" * (MOST_BYTES - 1_000))), "no answer of Ollama's"),
    "compressed": ("/api/chat", instead(Reply(200, b"\x1f\x8b\x08\x00", (("Content-Encoding", "gzip"),))), "no answer"),
    "a redirect": ("/api/chat", instead(redirect("http://127.0.0.1:9/api/chat", 307)), "another address"),
    "tags are a page": ("/api/tags", instead(html_reply()), "no answer of Ollama's"),
    "tags are a list": ("/api/tags", instead(json_reply([])), "no answer of Ollama's"),
    "tags without models": ("/api/tags", instead(json_reply({})), "no answer|error"),
    "tags of another kind": ("/api/tags", instead(json_reply({"models": [1, None]})), "no answer of Ollama's"),
    "show is not there": ("/api/show", instead(json_reply({"error": "nope\x1b[31m"}, 404)), "404: nope"),
    "it does not unload": ("/api/generate", instead(json_reply({"error": "no"}, 500)), "error 500"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_costs_a_warning_and_nothing_else(kind: str) -> None:
    path, fault, says = FAULTS[kind]
    with OllamaServer(lambda chat: GOOD) as ollama:
        ollama.server.fault(path, fault)
        result = ask(ollama)
    if path == "/api/generate":  # the prompt was read before
        assert result.prompts[0].ranking == (1, 0) and re.search(says, result.details[0])
        return
    assert_fell_back(result, says)


@pytest.mark.parametrize(
    "fault", [stall(-1), stall(10), drip(0.05), promise()], ids=["silent", "stalls", "drips", "103s"]
)
def test_what_takes_too_long_is_given_up(fault: Fault) -> None:
    with OllamaServer(lambda chat: GOOD) as ollama:
        ollama.server.fault("/api/chat", fault)
        began = time.monotonic()
        result = ask(ollama, timeout_s=0.1)
        assert time.monotonic() - began < 4
    assert_fell_back(result, "did not answer within 0.5 s|too large")


def test_nobody_is_there() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        settings = OllamaSettings(host=f"127.0.0.1:{unused.getsockname()[1]}")
        assert_fell_back(understand([QUESTION], settings, quiet), "does not answer; is it running")


def test_a_server_without_encryption_does_not_answer_to_https() -> None:
    with OllamaServer(lambda chat: GOOD) as ollama:
        settings = OllamaSettings(host=ollama.url.replace("http:", "https:"), timeout_s=2.0)
        assert_fell_back(understand([QUESTION], settings, quiet), "does not answer|broke off|did not answer")
        assert b"aunt" not in ollama.server.received()


def test_the_package_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ollama" else there(name))
    assert_fell_back(understand([QUESTION], OllamaSettings(), quiet), re.escape("pip install 'darkroom[ollama]'"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), inner),
    max_leaves=12,
)


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(["/api/tags", "/api/show", "/api/chat", "/api/generate", "/api/ps"]), value=JSON)
def test_whatever_json_a_server_sends_is_no_fault_of_ours(path: str, value: object) -> None:
    answers_file().unlink(missing_ok=True)
    with OllamaServer(lambda chat: GOOD) as ollama:
        ollama.server.fault(path, instead(json_reply(value)))
        result = ask(ollama, timeout_s=2.0)
    read = result.prompts[0]
    assert read.analysis.weather == ("rain",) and read.by_llm is bool(read.ranking) and set(read.ranking) <= {0, 1}
    assert read.by_llm or len(result.warnings) == 1


WRONG = {
    "empty": Said(""),
    "nothing but thoughts": Said("", thinking="The user wants a picture of"),
    "cut off": Said(GOOD, done_reason="length"),
    "no JSON": Said("Sure! Here is your answer."),
    "half of it": Said(GOOD[:40]),
    "a mangled brace": Said("{" + GOOD),
    "JSON in a text": Said(f"Here: {GOOD}"),
    "another shape": Said('["person"]'),
    "a number": Said("1"),
    "a value of no list": Said(GOOD.replace("person", "goblin")),
    "a key of its own": Said(GOOD[:-1] + ', "path": "../../x"}'),
    "a missing key": Said('{"subject": ["person"], "ranking": [1]}'),
    "too many values": Said(GOOD.replace('["calm"]', '["calm", "dark"]')),
    "a text instead of a list": Said(GOOD.replace('["calm"]', '"calm"')),
    "a candidate that was not offered": Said(GOOD.replace("[2, 1]", "[3, 1]")),
    "candidate zero": Said(GOOD.replace("[2, 1]", "[0]")),
    "a candidate by name": Said(GOOD.replace("[2, 1]", '["photo-xl"]')),
    "a number as text": Said(GOOD.replace("[2, 1]", '["2"]')),
    "true for one": Said(GOOD.replace("[2, 1]", "[true]")),
    "a fraction": Said(GOOD.replace("[2, 1]", "[1.5]")),
    "no ranking": Said(GOOD.replace("[2, 1]", "[]")),
    "NaN": Said(GOOD.replace("[2, 1]", "[NaN]")),
    "very deep": Said("[" * 50_000),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_answer_is_asked_again_once(kind: str) -> None:
    with OllamaServer(lambda chat: WRONG[kind]) as ollama:
        assert_fell_back(ask(ollama), "answers what cannot be used")
        first, second = ollama.chats()
        assert (
            first["think"] is False and "think" not in second
        )  # some models, and older servers, need the one or other
        assert second["messages"][:-1] == first["messages"] and "only the JSON" in second["messages"][-1]["content"]
        assert ollama.loaded["gemma3:4b"] == 0


@pytest.mark.parametrize("fence", ["```json\n{}\n```", "```\n{}\n```", "  ```json\n{}```\n"])
def test_a_fence_around_the_answer_is_no_fault(fence: str) -> None:
    with OllamaServer(lambda chat: fence.replace("{}", GOOD)) as ollama:
        result = ask(ollama)
    assert result.prompts[0].ranking == (1, 0) and not result.warnings


def test_the_second_attempt_counts() -> None:
    with OllamaServer(lambda chat: GOOD if "think" not in chat else Said("", "hm")) as ollama:
        result = ask(ollama)
    assert result.prompts[0].analysis.subject == ("person",) and not result.warnings


def of(number: int) -> Question:
    return Question(f"prompt {number}", PromptAnalysis())


def number_in(chat: Chat) -> int:
    return int(json.loads(chat["messages"][1]["content"])["prompt"].split()[-1])


def test_one_useless_answer_does_not_stop_the_others() -> None:
    good = write_answer(LlmAnswer({"subject": ("person",)}))
    with OllamaServer(lambda chat: "no" if number_in(chat) == 1 else good) as ollama:
        result = ask(ollama, *map(of, range(4)))
    assert [one.by_llm for one in result.prompts] == [True, False, True, True]
    assert len(result.warnings) == 1 and "1 of 4 prompts go without" in result.warnings[0]


def test_a_model_that_cannot_do_it_is_not_asked_for_ever() -> None:
    with OllamaServer(lambda chat: "no") as ollama:
        result = ask(ollama, *map(of, range(100)))
        assert len(ollama.chats()) == 2 * MOST_USELESS
    assert "100 of 100 prompts go without" in result.warnings[0]


def test_what_was_read_before_a_server_died_stays() -> None:
    good = write_answer(LlmAnswer({"subject": ("person",)}))
    with OllamaServer(lambda chat: good) as ollama:
        ollama.server.fault("/api/chat", lambda request, was: Reply(500) if b"prompt 2" in request.body else was)
        result = ask(ollama, *map(of, range(5)))
        assert [one.by_llm for one in result.prompts] == [True, True, False, False, False]
        assert "/api/generate" in ollama.server.paths()  # it is asked to unload all the same


PROXIED = """
import sys
from pipeline.prompting.analysis import PromptAnalysis
from pipeline.selection.ollama.answers import Question
from pipeline.selection.ollama.kept_answers import answers_file
from pipeline.selection.ollama.settings import OllamaSettings
from pipeline.selection.ollama.understand import understand

result = understand([Question("a dog", PromptAnalysis())], OllamaSettings(host=sys.argv[1]), print)
print(result.warnings, result.prompts[0].analysis.subject)
"""


@pytest.mark.slow
def test_nothing_of_the_environment_is_followed_or_sent(tmp_path: Path) -> None:
    good = write_answer(LlmAnswer({"subject": ("animal",)}))
    with OllamaServer(lambda chat: good) as ollama, HubServer() as elsewhere:
        proxies = {f"{scheme}_proxy": elsewhere.url for scheme in ("http", "https", "all")}
        netrc = tmp_path / ".netrc"
        netrc.write_text("machine 127.0.0.1 login canary password canary\n")
        netrc.chmod(0o600)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
            **proxies, **{name.upper(): value for name, value in proxies.items()},
            "OLLAMA_API_KEY": "canary", "OLLAMA_HOST": elsewhere.url, "NETRC": str(netrc), "HOME": str(tmp_path),
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", PROXIED, ollama.url], env=environment, cwd=REPO, capture_output=True, text=True
        )
        assert done.stdout.splitlines()[-1] == "() ('animal',)", done.stderr
        assert elsewhere.received() == b""
        sent = ollama.server.received().lower()
        assert b"canary" not in sent and b"authorization" not in sent and b"python" not in sent


INTERRUPTED = PROXIED.replace("print)", "lambda what, done, total: print(what, flush=True))")


@pytest.mark.slow
def test_ctrl_c_ends_it_and_the_model_is_asked_to_leave(tmp_path: Path) -> None:
    with OllamaServer(lambda chat: GOOD) as ollama:
        ollama.server.fault(
            "/api/chat", lambda request, was: stall(-1)(request, was) if b"a dog" in request.body else was
        )
        process = subprocess.Popen(
            [sys.executable, "-c", INTERRUPTED, ollama.url], cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
        )  # fmt: skip
        assert process.stdout is not None
        assert [process.stdout.readline().strip() for _ in range(2)] == ["loading", "thinking"]
        for _ in range(200):
            if len(ollama.chats()) == 1:
                break
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert "KeyboardInterrupt" in errors and process.returncode != 0
        assert ollama.bodies("/api/generate")[-1]["keep_alive"] == 0 and ollama.loaded["gemma3:4b"] == 0
