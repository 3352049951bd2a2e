"""Commands as nodes: a template of words, filled in with values, never seen by a shell."""

from __future__ import annotations

import os
import shlex
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from hpcpipe.errors import WorkflowError
from hpcpipe.labels import stem

_SHELL_WORDS = {"|", "||", "&&", ";", "&", ">", ">>", "<", "<<", "2>", "2>&1", "&>"}
_PARTS = ("stem", "name", "parent")


class CommandFailed(Exception):
    """A command ended with an exit code other than 0, or did not make what it should."""

    def __init__(self, words: str, exit_code: int | None = None) -> None:
        super().__init__(words, exit_code)
        self.words, self.exit_code = words, exit_code

    def __str__(self) -> str:
        return self.words


@dataclass(frozen=True)
class Command:
    """A command's words and the files it makes, as templates over its inputs.

    Callable as a task where its inputs are known only on the node.
    """

    words: tuple[str, ...]
    outputs: tuple[tuple[str, str], ...] = ()  # name, template; the name "" is the one output

    @property
    def default_name(self) -> str:
        """The program's own name, for the node."""
        return "".join(c if c.isalnum() or c in "_.-" else "_" for c in Path(self.words[0]).stem)

    def made(self, values: Mapping[str, Any], folder: str) -> dict[str, str]:
        """Give the path of every output, by name."""
        return {name: os.path.join(folder, _one_word(t, values)) for name, t in self.outputs}

    def argv(self, values: Mapping[str, Any], folder: str) -> list[str]:
        """Fill the words in; a list standing alone in a word becomes several words."""
        everything = {**values, **self.made(values, folder)}
        return [word for template in self.words for word in _filled(template, everything)]

    def value(self, values: Mapping[str, Any], folder: str) -> Any:
        """Give what the task returns: the output's path, or a dict of paths by name, or None."""
        made = {name: Path(path) for name, path in self.made(values, folder).items()}
        return made.get("", made) if made else None

    def __call__(self, hpcpipe_folder: str = "", **values: Any) -> Any:
        """Run it here and now; raises CommandFailed with its exit code."""
        import subprocess

        argv = self.argv(values, hpcpipe_folder)
        made = self.made(values, hpcpipe_folder)
        if made:
            os.makedirs(hpcpipe_folder, exist_ok=True)
        try:
            status = subprocess.run(argv, check=False).returncode
        except OSError as error:
            raise CommandFailed(f"{argv[0]}: {error.strerror}", 127) from error
        if status:
            raise CommandFailed(f"exit {status}: {shlex.join(argv)}", status)
        for path in made.values():
            if not os.path.lexists(path):
                raise CommandFailed(f"ended well but did not make {path}")
        return self.value(values, hpcpipe_folder)


def make_command(
    words: str | Sequence[str], outputs: str | Mapping[str, str] | None, inputs: Mapping[str, Any]
) -> Command:
    """Read a command as `Workflow.command` is given it; raises WorkflowError."""
    split = tuple(_split(words) if isinstance(words, str) else map(os.fspath, words))
    if not split:
        raise WorkflowError("command: no words")
    named = {"": outputs} if isinstance(outputs, str) else dict(outputs or {})
    command = Command(split, tuple(named.items()))
    known = set(inputs) | set(named) - {""}
    used = set()
    for template in (*split, *named.values()):
        for name, part in _fields(template):
            used.add(name)
            if name not in known:
                raise WorkflowError(
                    f"{split[0]}: {{{name}}} is neither an input nor an output; there is "
                    f"{', '.join(sorted(known)) or 'none'} (write {{{{ and }}}} for braces)"
                )
            if part is not None and part not in _PARTS:
                raise WorkflowError(f"{split[0]}: {{{name}.{part}}}: there is {', '.join(_PARTS)}")
    for name in named.keys() & inputs.keys():
        raise WorkflowError(f"{split[0]}: {name!r} is both an input and an output")
    return command


def _split(text: str) -> list[str]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise WorkflowError(f"command {text!r}: {error}") from error
    for word in words:
        if word in _SHELL_WORDS:
            raise WorkflowError(
                f"command {text!r}: {word!r} would be an argument, since no shell runs it; "
                "write ['sh', '-c', '…'] if you want one"
            )
    return words


def _fields(template: str) -> Iterator[tuple[str, str | None]]:
    try:
        for _, field, _, _ in string.Formatter().parse(template):
            if field is not None:
                name, dot, part = field.partition(".")
                yield name, part if dot else None
    except ValueError as error:
        raise WorkflowError(f"command: {template!r}: {error}") from error


def _filled(template: str, values: Mapping[str, Any]) -> list[str]:
    """Fill one word in; it stays one word, unless it is a list's placeholder and nothing else."""
    fields = list(_fields(template))
    if len(fields) == 1 and template == f"{{{fields[0][0]}}}":
        value = values[fields[0][0]]
        if isinstance(value, list | tuple):
            return [_text(item) for item in value]
    return [_one_word(template, values)]


def _one_word(template: str, values: Mapping[str, Any]) -> str:
    word = ""
    for literal, field, _, _ in string.Formatter().parse(template):
        word += literal
        if field is not None:
            name, dot, part = field.partition(".")
            word += _part(values[name], part) if dot else _text(values[name])
    if "\0" in word:
        raise WorkflowError(f"{template!r}: a word of a command cannot hold a NUL character")
    return word


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(_text, value))
    return os.fspath(value) if isinstance(value, PurePath) else str(value)


def _part(value: Any, part: str) -> str:
    path = PurePath(_text(value))
    return stem(path.name) if part == "stem" else str(getattr(path, part))
