"""The phase in which an LLM reads all prompts of a plan, before anything is on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pipeline.errors import OllamaUnavailable
from pipeline.prompting.analysis import PromptAnalysis
from pipeline.prompting.filling import filled
from pipeline.selection.ollama.answers import ONLY_JSON, LlmAnswer, Question, messages, read_answer, schema
from pipeline.selection.ollama.kept_answers import keep_answer, kept_answers
from pipeline.selection.ollama.local_models import LlmModel, choose_model
from pipeline.selection.ollama.settings import OllamaSettings, is_installed
from pipeline.selection.ollama.unloading import unload

if TYPE_CHECKING:
    from pipeline.selection.ollama.client import OllamaClient

MOST_USELESS = 5
"""Answers one behind the other of which nothing can be used: after these the model is not asked any more."""

Progress = Callable[[Literal["loading", "thinking", "unloading"], int, int], None]
"""Is told what begins now, how many prompts are read already, and of how many."""


@dataclass(frozen=True, slots=True)
class Read:
    """A prompt as it is understood now, and the places of the candidates in `Question.offered`, the best first.

    The ranking is empty where the LLM gave none, and may leave candidates out.
    """

    analysis: PromptAnalysis
    ranking: tuple[int, ...] = ()
    by_llm: bool = False


@dataclass(frozen=True, slots=True)
class Understood:
    """What the phase gave: one `Read` a question, in their order.

    `warnings` has at most one line of what went wrong, which may be recorded; `details` is the same for the user, with
    the server's address, its words and the way out. `model` is the name and digest of the LLM, where one was found.
    """

    prompts: tuple[Read, ...]
    model: tuple[str, str] | None = None
    warnings: tuple[str, ...] = ()
    details: tuple[str, ...] = ()


def understand(questions: Sequence[Question], settings: OllamaSettings, progress: Progress) -> Understood:
    """Have an LLM fill the gaps of every analysis and rank what is offered; each question is asked once.

    No fault is raised: what cannot be had stays as the earlier stages left it, and one warning says so. The LLM is out
    of memory when this returns, also after Ctrl-C, which is raised on.
    """
    phase = _Phase(questions, settings, progress)
    try:
        if not is_installed():
            raise OllamaUnavailable(
                "Ollama is asked through the package ollama, which is not installed; pip install 'darkroom[ollama]'",
                "the package ollama is not installed",
            )
        from pipeline.selection.ollama.client import OllamaClient

        with closing(OllamaClient(settings.address, settings.timeout_s)) as client:
            phase.run(client)
    except OllamaUnavailable as error:
        phase.trouble = error
    return phase.result()


class _Phase:
    def __init__(self, questions: Sequence[Question], settings: OllamaSettings, progress: Progress) -> None:
        self._questions, self._settings, self._progress = questions, settings, progress
        self._answers: dict[Question, LlmAnswer] = {}
        self._useless = 0
        self._model: LlmModel | None = None
        self.trouble: OllamaUnavailable | None = None

    def run(self, client: OllamaClient) -> None:
        """Ask what no kept answer tells."""
        self._model = model = choose_model(client, self._settings.model, self._settings.allow_remote)
        distinct = list(dict.fromkeys(self._questions))
        self._answers = kept_answers(distinct, model.digest)
        missing = [question for question in distinct if question not in self._answers]
        if not missing:
            return
        self._progress("loading", len(self._answers), len(distinct))
        with self._unloaded_after(client, model.name):
            client.load(model.name)
            self._ask(client, model, missing, len(distinct))

    def _ask(self, client: OllamaClient, model: LlmModel, missing: list[Question], total: int) -> None:
        in_a_row, fault = 0, ""
        for done, question in enumerate(missing, start=total - len(missing)):
            self._progress("thinking", done, total)
            try:
                answer = _answer(client, model.name, question)
            except ValueError as error:
                self._useless, in_a_row, fault = self._useless + 1, in_a_row + 1, str(error)
                if in_a_row == MOST_USELESS:
                    break
                continue
            in_a_row = 0
            self._answers[question] = answer
            keep_answer(question, model.digest, answer)
        if self._useless:
            text = f"{model.name} answers what cannot be used"
            self.trouble = OllamaUnavailable(f"{text} ({fault}); another model may: selection.ollama.model=NAME", text)

    @contextmanager
    def _unloaded_after(self, client: OllamaClient, name: str) -> Iterator[None]:
        """Whatever happens the model is asked to leave; only where all went well is waited for that."""
        try:
            yield
        except BaseException:
            with suppress(OllamaUnavailable):
                client.unload(name)
            raise
        self._progress("unloading", len(self._questions), len(self._questions))
        unload(client, name, on_this_machine=self._settings.is_here)

    def result(self) -> Understood:
        """What is known now."""
        prompts = tuple(self._read(question) for question in self._questions)
        model = (self._model.name, self._model.digest) if self._model else None
        if self.trouble is None:
            return Understood(prompts, model)
        unread = sum(not one.by_llm for one in prompts)
        rest = f"{unread} of {len(prompts)} prompts go without" if unread else "all prompts were read"
        return Understood(prompts, model, (f"{self.trouble.recorded}; {rest}",), (f"{self.trouble}; {rest}",))

    def _read(self, question: Question) -> Read:
        answer = self._answers.get(question)
        if answer is None:
            return Read(question.analysis)
        return Read(filled(question.analysis, answer.found, "ollama", question.prompt), answer.ranking, by_llm=True)


def _answer(client: OllamaClient, model: str, question: Question) -> LlmAnswer:
    """The answer to one question, at the second attempt if need be. Raises `ValueError` if neither can be used.

    With `think` false the schema holds from the first token on newer servers; some models and older servers give
    nothing, or no JSON, then, and do without the field.
    """
    chat = messages(question)
    try:
        return _attempt(client, model, chat, question.ranked, think=False)
    except ValueError:
        again = [*chat, {"role": "user", "content": ONLY_JSON}]
        return _attempt(client, model, again, question.ranked, think=None)


def _attempt(
    client: OllamaClient, model: str, chat: list[dict[str, str]], ranked: int, *, think: bool | None
) -> LlmAnswer:
    said = client.chat(model, chat, schema(ranked), think=think)
    if not said.ended:
        raise ValueError("cut off")
    if not said.content.strip():
        raise ValueError("nothing but thoughts" if said.thinking else "empty")
    return read_answer(said.content, ranked)
