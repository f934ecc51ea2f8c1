"""A real browser that a test drives by keys: Chromium's debugging protocol over a pair of pipes."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 60.0  # seconds; for a busy machine
ENDS = b"\0"
START = """
import fcntl, os, sys
commands, answers = (fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3])
os.dup2(commands, 3)
os.dup2(answers, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""The browser reads its descriptor 3 and writes its descriptor 4."""


class Browser:
    """One page of a headless browser."""

    def __init__(self, commands: BinaryIO, answers: BinaryIO) -> None:
        self._commands, self._answers = commands, answers
        self._numbers = iter(range(1, 10**9))
        self._unread = b""
        self._session: str | None = None
        target = self._do("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._do("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def open(self, address: str) -> None:
        """Load a page, and wait until it has loaded."""
        self.value("window.left = true")  # the page before, which may have loaded long ago
        self._do("Page.navigate", url=address)
        self.wait_for("!window.left && document.readyState === 'complete'")

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript is on the page now."""
        found = self._do("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Wait until an expression of JavaScript is true."""
        deadline = time.monotonic() + PATIENCE
        while not self.value(f"!!({expression})"):
            assert time.monotonic() < deadline, f"{expression} was never true: {self.text('body')}"
            time.sleep(0.02)

    def text(self, selector: str) -> str:
        """The text that a person sees in an element."""
        return str(self.value(f"document.querySelector({json.dumps(selector)}).innerText"))

    def press(self, key: str) -> None:
        """Press a key, as a person would."""
        code = {"Enter": 13, "Backspace": 8}.get(key, ord(key[0].upper()))
        text = {"Enter": "\r", "Backspace": ""}.get(key, key)
        self._do("Input.dispatchKeyEvent", type="keyDown", key=key, text=text, windowsVirtualKeyCode=code)
        self._do("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def write(self, text: str) -> None:
        """Write text into the element that has the focus."""
        self._do("Input.insertText", text=text)

    def picture(self, path: Path) -> None:
        """Write a screenshot."""
        path.write_bytes(base64.b64decode(self._do("Page.captureScreenshot", captureBeyondViewport=True)["data"]))

    def _do(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        session = {"sessionId": self._session} if self._session else {}
        message = {"id": number, "method": method, "params": parameters, **session}
        self._commands.write(json.dumps(message).encode() + ENDS)
        self._commands.flush()
        while True:
            answer = self._read()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def _read(self) -> dict[str, Any]:
        while ENDS not in self._unread:
            part = os.read(self._answers.fileno(), 1 << 20)
            assert part, "the browser has ended"
            self._unread += part
        message, _, self._unread = self._unread.partition(ENDS)
        found: dict[str, Any] = json.loads(message)
        return found


@contextmanager
def browsing(directory: Path) -> Iterator[Browser]:
    """A browser with a fresh profile; the test is skipped where none is installed."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    (command_end, commands), (answers, answer_end) = os.pipe(), os.pipe()
    options = (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--window-size=1200,900",
        "--remote-debugging-pipe",
        f"--user-data-dir={directory}",
    )

    process = subprocess.Popen(
        [sys.executable, "-c", START, str(command_end), str(answer_end), program, *options, "about:blank"],
        pass_fds=(command_end, answer_end),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(command_end)
    os.close(answer_end)
    try:
        with open(commands, "wb") as write, open(answers, "rb", buffering=0) as read:
            yield Browser(write, read)
    finally:
        process.kill()
        process.wait()
