"""The first phase of a bundle: encodes its texts to embeddings."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

from pipeline.adapters.apply import apply
from pipeline.errors import Interrupted, JobFailure, OutOfMemory
from pipeline.generation.encode import EncodedPrompt, encode, known
from pipeline.generation.recovery.fallbacks import Fallbacks
from pipeline.generation.recovery.guarded import attempted
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.memory.device.stages import stage
from pipeline.memory.planning.estimate import Stage
from pipeline.request import Adapters, ImageRequest


class Texts:
    """The texts of requests, by index: `prompts` as encoded, `techniques` of the text encoders while encoding.

    `on_work` hears of each that is encoded; `timed` is entered for the time of the work.
    """

    def __init__(
        self,
        model: LoadedModel,
        requests: Sequence[ImageRequest],
        fallbacks: Fallbacks,
        should_stop: Callable[[], bool],
        on_work: Callable[[Stage, Sequence[int]], None],
        timed: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.prompts: dict[int, EncodedPrompt] = {}
        self.techniques: dict[int, tuple[str, ...]] = {}
        self._model, self._requests, self._fallbacks = model, requests, fallbacks
        self._should_stop, self._on_work, self._timed = should_stop, on_work, timed

    def encode_all(self) -> Iterator[tuple[int, JobFailure]]:
        """Encode all texts; yields the indices of those that cannot be encoded, with the reason."""
        self._fallbacks.prepare_encoding()
        todo = deque[int]()
        for place, request in enumerate(self._requests):
            hopeless = self._fallbacks.why_not(request, "encode")
            if hopeless is None or self._is_known(place):
                todo.append(place)
            else:
                yield place, hopeless
        while todo:
            with self._timed():
                failure = attempted(self._model, lambda: self._encode(todo))
            if failure is None:
                return
            if not isinstance(failure, OutOfMemory):
                yield todo.popleft(), failure
                continue
            after = self._fallbacks.fall_back(failure, [self._requests[todo[0]]], "encode")
            if isinstance(after, OutOfMemory):
                yield from ((place, after) for place in todo if not self._is_known(place))
                return

    def _encode(self, todo: deque[int]) -> None:
        """The first one first; what is done is no longer in `todo`."""
        while todo and self._is_known(todo[0]):
            todo.popleft()
        if not todo:
            return
        applied: Adapters | None = None
        with stage(self._model, "encode"):
            while todo:
                if self._should_stop():
                    raise Interrupted("stopped before denoising")
                if not self._is_known(todo[0]):
                    request = self._requests[todo[0]]
                    self._on_work("encode", [todo[0]])
                    if request.adapters != applied:
                        apply(self._model, request.adapters)
                        applied = request.adapters
                    self._keep(todo[0], encode(self._model, request))
                    self._fallbacks.encoded(request)
                todo.popleft()

    def _is_known(self, place: int) -> bool:
        """Whether a request's texts are encoded already; they are kept for it then."""
        prompt = known(self._model, self._requests[place])
        if prompt is not None:
            self._keep(place, prompt)
        return prompt is not None

    def _keep(self, place: int, prompt: EncodedPrompt) -> None:
        self.prompts[place] = prompt
        self.techniques[place] = tuple(t for t in self._model.memory.techniques if t.startswith("encoder_"))
