"""All errors, as one tree.

    DarkroomError                 a sentence for the user: what, where, what was expected, the way out
      + ConfigError               the batch cannot start; carries every fault found            exit 2
      |   - UntrustedConfig       a configuration file that steers Hydra or names code
      |   - PromptFileError       a prompt file that cannot be read as prompts
      + ModelError                weights that are missing, damaged or of a refused kind
      |   - WeightsChanged        they are no longer those that were planned with
      |   - DownloadError         a hub gave no file, or none that may be used
      |       - Unreachable       no connection, or one that broke or stood still; later it may work
      |           - BrokenOff     there was one; the next may hold
      |       - UnsafeAnswer      an answer that leads to a forbidden place or is not what was asked for
      + JobFailure                one image could not be made; the others go on                exit 3
      |   - BadPixels             NaN or all-black output
      |   - LeakFound             the finished file would carry something private
      |   - OutOfMemory           the device or the machine had no memory left
      |       - OutOfHostMemory   it was the machine
      + RunStopped                nothing more can be made now, everything done is kept        exit 4
      |   - DiskFull
      |   - ManifestLost          it was deleted while images were made
      |   - DeviceLost            the device no longer answers; only a new process can go on
      + ReadError                 an image or manifest file that cannot be read
      + OllamaUnavailable         no LLM, or no usable answer of it; a prompt is understood without
      + Interrupted               a stop was asked for between two denoising steps

Catch `DarkroomError` to show its text; catch `JobFailure` to record it and go on.
"""

from __future__ import annotations

from collections.abc import Sequence


class DarkroomError(Exception):
    """Base of every error that is shown to the user as one line, without a traceback."""


class ConfigError(DarkroomError):
    """The batch is not valid. `faults` holds one line per fault, in the order found."""

    def __init__(self, faults: str | Sequence[str]) -> None:
        self.faults: tuple[str, ...] = (faults,) if isinstance(faults, str) else tuple(faults)
        super().__init__("\n".join(self.faults))


class UntrustedConfig(ConfigError):
    """A configuration file reaches Hydra's own node or names Python code."""


class PromptFileError(ConfigError):
    """A prompt file is missing, malformed or not UTF-8; the message names file and line."""


class ModelError(DarkroomError):
    """Weights are missing, damaged, or of a kind that is refused."""


class WeightsChanged(ModelError):
    """Weights files have changed since the plan; a new plan names the current ones."""


class DownloadError(ModelError):
    """A hub gave no file, or none that may be used; no incomplete file was left under a final name."""


class Unreachable(DownloadError):
    """No connection, or one that broke or stalled. The same request may succeed later."""


class BrokenOff(Unreachable):
    """A connection broke or stalled. The same request may succeed at once."""


class UnsafeAnswer(DownloadError):
    """An answer that leads to a forbidden place, is too large or is compressed. Asking again does not help."""


class JobFailure(DarkroomError):
    """One image could not be made. `kind` is the manifest's `error_kind`."""

    kind = "error"


class BadPixels(JobFailure):
    """The model returned NaN or an all-black picture."""

    kind = "bad_pixels"


class LeakFound(JobFailure):
    """The finished file holds a home folder, a user's name or something like a key."""

    kind = "leak"


class OutOfMemory(JobFailure):
    """The device or the machine had no memory left for this image."""

    kind = "out_of_memory"


class OutOfHostMemory(OutOfMemory):
    """The machine had no memory left, however much the device has."""


class RunStopped(DarkroomError):
    """The run cannot go on now; everything finished is kept and the same command resumes."""

    kind = "stopped"


class DiskFull(RunStopped):
    """No space left where the images or the manifest are written."""

    kind = "disk_full"


class ManifestLost(RunStopped):
    """The manifest was deleted while images were made, and with it the rows of earlier images."""

    kind = "manifest_lost"


class DeviceLost(RunStopped):
    """The device reported an error after which its context is unusable."""

    kind = "device_lost"


class ReadError(DarkroomError):
    """An image, a record or a manifest file cannot be read."""


class OllamaUnavailable(DarkroomError):
    """Ollama is not there, or its answer cannot be used; what it was asked goes on without it.

    The text is for the user and may name the server's address and quote it. `recorded` may be written into images.
    """

    def __init__(self, text: str, recorded: str) -> None:
        super().__init__(text)
        self.recorded = recorded


class Interrupted(DarkroomError):
    """A stop was requested; images that were being denoised are dropped."""
