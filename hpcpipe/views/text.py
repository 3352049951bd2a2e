"""Text for a screen. What others wrote is shown as text, and never obeyed.

Error messages, file names and a scheduler's answers may hold escape codes, bells or characters that
the terminal cannot show. Every line that a command prints passes through here.
"""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

from hpcpipe.printable import printable


class Size(NamedTuple):
    """The columns and lines of a screen."""

    columns: int = 80
    lines: int = 24

    @property
    def width(self) -> int:
        """Columns to fill: a line of full width makes some terminals add an empty one."""
        return self.columns - 2


USUAL = Size()  # of a terminal, and in a pipe


def screen_size() -> Size:
    """Return the size of the terminal, by COLUMNS and LINES if they are set; 80 x 24 in a pipe."""
    try:
        found = Size(*os.get_terminal_size(sys.stdout.fileno()))
    except (AttributeError, OSError, ValueError):
        found = USUAL
    said = (os.environ.get(name, "") for name in ("COLUMNS", "LINES"))
    columns, lines = (
        int(word) if word.isdecimal() and int(word) else one or usual
        for word, one, usual in zip(said, found, USUAL, strict=True)
    )
    return Size(max(40, columns), max(10, lines))


def redraws() -> bool:
    """Return whether standard output is a terminal on which a screen can be drawn anew."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("", "dumb", "unknown")


def shown(text: str, encoding: str | None = None) -> str:
    """Return text, of any number of lines, as a terminal of an encoding can show it."""
    text = "\n".join(map(printable, text.split("\n")))
    encoding = encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.replace("…", "...").encode(encoding, "backslashreplace").decode(encoding)
    return text


does_something: list[str] = []  # the command, if it is more than a look


def show(text: str = "", *, err: bool = False, end: str = "\n") -> None:
    """Print text to standard output, or error, at once.

    Where nobody reads it any more, as in ``hpcpipe logs … | head``, a command that only shows
    something ends; one that does something goes on.
    """
    stream = sys.stderr if err else sys.stdout
    try:
        print(shown(text, stream.encoding), file=stream, end=end, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if not does_something:
            sys.exit(0)


def first_line(text: str) -> str:
    """Return the first line that is not empty, printable."""
    lines = (printable(line).replace("\t", " ").strip() for line in text.splitlines())
    return next(filter(None, lines), "")


def cut(line: str, width: int) -> str:
    """Shorten a line in the middle: its end, of a path for example, tells as much as its start."""
    line = printable(line).replace("\t", " ")
    if len(line) <= width:
        return line
    end = width * 2 // 5
    return f"{line[: width - end - 1]}…{line[-end:]}"
