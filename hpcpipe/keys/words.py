"""Which files the words of a command stand for: those that count, and those of which nobody knows.

Only what is sure counts: a word that is a file, the file in ``--option=FILE``, the program behind
``env``, and what Python would import. The rest is said, see `uncounted`.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hpcpipe.graph.command import Command
from hpcpipe.keys.programs import own_modules, own_program, program_of

_OPTION = re.compile(r"-{0,2}([A-Za-z][\w.-]*)=(.+)", re.DOTALL)
# Options that name what a command is to write, such as of=, --out=, --log-file=: no inputs.
_WRITTEN = re.compile(r"(?i)of?|.*out.*|.*log.*|(dest|save|report|result|write|target).*")
_BETWEEN = re.compile(r"[\s'\"=:,;<>|&()@]+")
_MOST = 100  # values in which files are looked for


def file_in(word: str) -> str | None:
    """Return the file, or folder, that a word stands for: the word, or an option's value."""
    if word and os.path.exists(word):
        return word
    option = _OPTION.fullmatch(word)
    if option is None or _WRITTEN.fullmatch(option[1]):
        return None
    return option[2] if os.path.isfile(option[2]) else None


def files_of_words(command: Command) -> Iterator[tuple[str, Path]]:
    """Yield the words of a command that stand for a file: an edited script is another command."""
    at, variables = program_of(command.words)
    words = command.words[at:]
    program, rest = words[0], words[1:]
    if "/" in program and os.path.isfile(program):
        yield program, Path(program)
    elif not command.function and (script := own_program(program)):
        yield program, script
    for word in rest:
        if (file := file_in(word)) and os.path.isfile(file):
            yield word, Path(file)
    given = {*map(os.path.abspath, rest)}
    for name, path in own_modules(words, variables) if not command.function else ():
        if str(path) not in given:
            yield f"of module {name}", path


def uncounted(command: Command, values: Iterable[Any] = ()) -> list[str]:
    """List the files, and scripts of the user's own, that may be used and do not count."""
    at, _ = program_of(command.words)
    words = [word for word in command.words[at + 1 :] if not os.path.isfile(word)]
    texts = [one for value in values for one in _texts(value)]
    found = {word for word in words if os.path.isdir(word)}
    for word in [*words, *texts[:_MOST]]:
        pieces = {one for one in _BETWEEN.split(word) if os.path.isfile(one)}
        found |= pieces - {file_in(word)}
    for piece in (piece for word in words for piece in _split(word)):
        if "/" not in piece and (script := own_program(piece)):
            found.add(str(script))
    return sorted(found)


def _texts(value: Any) -> Sequence[str]:
    if isinstance(value, list | tuple):
        return [one for item in value for one in _texts(item)]
    return [value] if isinstance(value, str) and not os.path.exists(value) else []


def _split(word: str) -> list[str]:
    with suppress(ValueError):
        return shlex.split(word)
    return []
