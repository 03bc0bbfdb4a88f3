"""What reaches the user's eyes: results on standard output, everything else beside them."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

__all__ = ["Console", "Style", "printable"]

Style = Literal["plain", "bold", "dim", "red", "yellow"]

_CODES = {"bold": "1", "dim": "2", "red": "31", "yellow": "33"}
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_DEVELOPER_WARNINGS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)


def printable(text: str) -> str:
    r"""Show control characters as what they are, so that no document can steer a terminal.

    >>> printable("a\tb \x1b[2J")
    'a\tb \\x1b[2J'
    """
    return _CONTROL.sub(lambda found: f"\\x{ord(found.group()):02x}", text)


class Console:
    """The two streams of a command, and how much of what is said goes to them.

    Args:
        as_json: Whether the result is one JSON document, so that nothing else may be on standard
            output.
        quiet: Whether only results and errors are shown.
        verbose: Whether logs and tracebacks are shown as well.
    """

    def __init__(
        self, *, as_json: bool = False, quiet: bool = False, verbose: bool = False
    ) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.verbose = verbose
        self._within_line = False

    @property
    def is_terminal(self) -> bool:
        """Whether someone reads the result as it comes."""
        return not self.as_json and sys.stdout.isatty()

    @property
    def shows_progress(self) -> bool:
        """Whether progress bars are drawn."""
        return not (self.quiet or self.as_json) and sys.stderr.isatty()

    # --- results: standard output -------------------------------------------------------------

    def show(self, text: object = "", *, style: Style = "plain") -> None:
        """Print a part of the result for people; nothing if it is to be JSON."""
        if not self.as_json:
            self._within_line = False
            print(_styled(printable(str(text)), style, sys.stdout))

    def write(self, piece: str) -> None:
        """Print a piece of a line at once."""
        if not self.as_json:
            self._within_line = True
            print(printable(piece), end="", flush=True)

    def end_line(self) -> None:
        """End a line that was begun with `write`, if there is one."""
        if self._within_line:
            self.show()

    def document(self, value: Any) -> None:
        """Print the result as JSON, if it is to be."""
        if not self.as_json:
            return
        text = json.dumps(value, ensure_ascii=False, indent=2, default=str)
        try:
            text.encode(sys.stdout.encoding or "utf-8")
        except UnicodeEncodeError:  # another encoding, or half a surrogate pair
            text = json.dumps(value, indent=2, default=str)
        print(text)

    # --- everything else: standard error ------------------------------------------------------

    def say(self, text: object) -> None:
        """Say what is being done."""
        if not self.quiet:
            self._tell(printable(str(text)))

    def warn(self, text: object) -> None:
        """Say what the user should know, though the command goes on."""
        if not self.quiet:
            self._tell(_styled("warning:", "yellow", sys.stderr) + f" {printable(str(text))}")

    def fail(self, text: object) -> None:
        """Say why the command failed."""
        self._tell(_styled("error:", "red", sys.stderr) + f" {printable(str(text))}")

    @contextmanager
    def working(self, title: str) -> Iterator[None]:
        """Show on a terminal what takes its time, and take it away when it is over."""
        if not self.shows_progress:
            yield
            return
        print(f"{printable(title)} ...", end="", file=sys.stderr, flush=True)
        try:
            yield
        finally:
            width = len(title) + 4
            print(f"\r{' ' * width}\r", end="", file=sys.stderr, flush=True)

    def _tell(self, line: str) -> None:
        if "tqdm" in sys.modules:  # a bar may be in the way
            from tqdm import tqdm

            tqdm.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr)

    # --- what libraries say -------------------------------------------------------------------

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the logs and warnings of this process, and give them back afterwards."""
        logger = logging.getLogger("phi3_industry")
        handler = _LogLines(self)
        level = logger.level
        logger.setLevel(logging.INFO if self.verbose else logging.WARNING)
        logger.addHandler(handler)
        try:
            with warnings.catch_warnings():
                warnings.showwarning = self._take_warning
                yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)

    def _take_warning(self, message: Any, category: type[Warning], *_: Any, **__: Any) -> None:
        if self.verbose or not issubclass(category, _DEVELOPER_WARNINGS):
            self.warn(" ".join(str(message).split()))


class _LogLines(logging.Handler):
    """Turns log records into lines of a console."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Say one record."""
        speak = self._console.warn if record.levelno >= logging.WARNING else self._console.say
        speak(record.getMessage())


def _styled(text: str, style: Style, stream: Any) -> str:
    plain = style == "plain" or not text or not stream.isatty()
    if plain or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m"
