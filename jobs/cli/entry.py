"""`darkroom` as a process. Only the code that handles Ctrl-C is imported before that is ready: the rest takes long."""

import signal
import sys

STOPPED_BY_CTRL_C = 130
"""What shells make of a process that SIGINT has ended."""


def main() -> int:
    """Run the command line; returns the exit code. Errors meant for users are one line on standard error."""
    if _makes_images():
        from jobs.cli.run_py import run_py

        return run_py(sys.argv[2:])
    from jobs.cli.commands import run_command

    return run_command()


def script() -> None:
    """Never returns. Ctrl-C ends it without a traceback, from this function's first line to its last."""
    is_answered = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else a parent has it ignored
    if is_answered:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if not _makes_images():
        import jobs.cli.commands  # noqa: F401 what takes long
    from jobs.running.interrupts import answer_ctrl_c
    from jobs.running.program import leave

    code = STOPPED_BY_CTRL_C
    try:
        if is_answered:
            answer_ctrl_c()
        code = main()
        if is_answered:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    except KeyboardInterrupt:
        pass
    leave(code)


def _makes_images() -> bool:
    """Whether this is `darkroom run ...`, which needs none of the other commands."""
    return sys.argv[1:2] == ["run"]
