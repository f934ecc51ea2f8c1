"""End a command at Ctrl-C or SIGTERM, whatever the command is doing.

A command works on a thread of its own, and the main thread waits for signals. Python runs signal handlers on the main
thread only, and only there can a library replace them, so an import, a training or a query in C code neither delays nor
swallows a signal. The process then ends at once, as after ``kill -9``: every write of adseq is a commit or a rename.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import FrameType
from typing import NoReturn, ParamSpec, TypeVar

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE_SECONDS = 2.0
"""How long the actions of ``before_ending`` may take together."""

POLL_SECONDS = 0.5
SHOW_CURSOR = b"\x1b[?25h"  # a progress bar hides the cursor

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_actions: list[Callable[[], None]] = []


def sentence(number: int) -> str:
    """Return the sentence that a command prints when signal ``number`` ends the command."""
    cause = "Interrupted" if number == signal.SIGINT else "Stopped by SIGTERM"
    return f"{cause}. Finished work is kept and nothing half-written is read; the same command continues from there."


def exit_code(number: int) -> int:
    """Return the exit code of a process that signal ``number`` ends: 130 for SIGINT, 143 for SIGTERM."""
    return 128 + number


@contextmanager
def before_ending(action: Callable[[], None]) -> Iterator[None]:
    """Run ``action`` if a signal ends the process within the block.

    The action runs while the command goes on. An action that fails or is late is given up.
    """
    _actions.append(action)
    try:
        yield
    finally:
        _actions.remove(action)


@contextmanager
def ending_at_signals() -> Iterator[None]:
    """End the process at SIGINT or SIGTERM within the block, which runs on the main thread."""
    before = {number: signal.signal(number, _end) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stoppable(command: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Return ``command`` so that SIGINT and SIGTERM end the process within seconds, with one sentence.

    On another thread than the main one, signals cannot be handled: the command runs unchanged.
    """

    @wraps(command)
    def run(*arguments: Parameters.args, **keywords: Parameters.kwargs) -> Result:
        if threading.current_thread() is not threading.main_thread():
            return command(*arguments, **keywords)
        with ending_at_signals():
            return _on_a_thread(lambda: command(*arguments, **keywords))

    return run


def _on_a_thread(work: Callable[[], Result]) -> Result:
    """Run ``work`` on another thread to its end; return the result or raise the error on this thread."""
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="adseq command", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(POLL_SECONDS)
    if errors:
        raise errors[0]
    return results[0]


def _end(number: int, _frame: FrameType | None) -> None:
    """End the process without unwinding the stack: C code, imports and retries would only delay the end or crash."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    actions = threading.Thread(target=_run_actions, daemon=True)
    actions.start()
    actions.join(GRACE_SECONDS)
    if sys.stderr.isatty():
        os.write(sys.stderr.fileno(), SHOW_CURSOR)
    os.write(2, f"\n{sentence(number)}\n".encode())
    leave(number)


def leave(number: int) -> NoReturn:
    """End the process with the exit code of signal ``number``; an orderly end of the interpreter takes seconds."""
    os._exit(exit_code(number))


def _run_actions() -> None:
    for action in reversed(list(_actions)):
        try:
            action()
        except Exception:  # an interruption ends with one sentence; the next command repairs what is left
            continue
