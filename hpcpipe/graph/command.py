"""Commands as nodes: a template of words, filled in with values, that no shell interprets."""

from __future__ import annotations

import os
import re
import shlex
import string
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from hpcpipe.errors import WorkflowError, near
from hpcpipe.graph.labels import stem

_QUOTED = re.compile(r"""'[^']*'|"(?:\\.|[^"\\])*"|\\.""", re.DOTALL)
_SHELL_WORD = re.compile(r"\d?[|&;<>]+")
_PARTS = ("stem", "name", "parent")
_ONLY = "output"  # the name of a single output in the words


class CommandFailed(Exception):
    """A command exited with a code other than 0, or did not create its outputs."""

    def __init__(self, words: str, exit_code: int | None = None) -> None:
        super().__init__(words, exit_code)
        self.words, self.exit_code = words, exit_code

    def __str__(self) -> str:
        return self.words


@dataclass(frozen=True)
class Command:
    """A command's words and its output files, as templates over its inputs.

    It can be called as a task, for inputs that are known only on the compute node.
    """

    words: tuple[str, ...]
    outputs: tuple[tuple[str, str], ...] = ()  # name, template; "" names a single output
    function: str = ""  # the definition, for bash, of what the first word names; else a program

    @property
    def default_name(self) -> str:
        """The program's own name, for the node."""
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", Path(self.words[0]).stem)
        return name if re.match(r"[A-Za-z_]", name) else f"_{name}"

    @property
    def identity(self) -> tuple[Any, ...]:
        """What distinguishes it from other commands, besides its inputs."""
        return (self.words, self.outputs, *filter(None, (self.function,)))

    def made(self, values: Mapping[str, Any], folder: str) -> dict[str, str]:
        """Return the outputs' paths by name; raise WorkflowError for one not in the folder."""
        made = {}
        for name, template in self.outputs:
            path = _one_word(template, values)
            if os.path.isabs(path) or os.path.normpath(path).split("/")[0] in (".", ".."):
                raise WorkflowError(
                    f"{self.words[0]}: output {name or _ONLY!r} would be {path!r}, not a file in "
                    "the task's own folder; write a file name, such as {input.name}"
                )
            made[name] = os.path.join(folder, path)
        return made

    def argv(self, values: Mapping[str, Any], folder: str) -> list[str]:
        """Return the words, filled in; a list that is a whole word becomes several words."""
        made = {name or _ONLY: path for name, path in self.made(values, folder).items()}
        everything = {**values, **made}
        return self.started([w for template in self.words for w in _filled(template, everything)])

    def started(self, words: list[str]) -> list[str]:
        """Return what runs these words: bash, if the first one is a function."""
        return ["bash", "-c", f'{self.function}\n"$0" "$@"', *words] if self.function else words

    def value(self, values: Mapping[str, Any], folder: str) -> Any:
        """Return the task's result: the output's path, or a dict of paths by name, or None."""
        made = {name: Path(path) for name, path in self.made(values, folder).items()}
        return made.get("", made) if made else None

    def __call__(self, hpcpipe_folder: str = "", **values: Any) -> Any:
        """Run the command and return its result; raise CommandFailed with its exit code."""
        import subprocess

        argv = self.argv(values, hpcpipe_folder)
        made = self.made(values, hpcpipe_folder)
        if made:
            os.makedirs(hpcpipe_folder, exist_ok=True)
        before = {path: _facts(path) for path in made.values()}
        try:
            status = subprocess.run(argv, check=False).returncode
        except OSError as error:
            raise CommandFailed(f"{argv[0]}: {error.strerror}", 127) from error
        if status:
            raise CommandFailed(f"exit {status}: {shlex.join(argv)}", status)
        for path, facts in before.items():
            if words := _amiss(path, facts):
                raise CommandFailed(f"ended well but {words}")
        return self.value(values, hpcpipe_folder)


def _facts(path: str) -> tuple[int, int, int] | None:
    """Return what changes when a file is written; None if there is no such file."""
    if not os.path.isfile(path):
        return None
    stat = os.stat(path)
    return stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns


def _amiss(path: str, before: tuple[int, int, int] | None) -> str:
    """Return what is wrong with an output, which was as ``before`` when its command began."""
    if not os.path.exists(path):
        return f"did not make {path}"
    if os.path.isfile(path) and not os.path.getsize(path):
        return f"made {path} empty"
    if before and before == _facts(path):
        return f"left {path} as an earlier try had made it: remove it to have it made"
    return ""


def exported(name: str) -> str:
    """Return the definition of a function that the user's bash exports; empty if there is none."""
    named = (f"BASH_FUNC_{name}%%", f"BASH_FUNC_{name}()")
    body = next((os.environ[one] for one in named if one in os.environ), "")
    return f"{name} {body}" if body.startswith("()") else ""


def make_command(
    words: str | Sequence[str], outputs: str | Mapping[str, str] | None, inputs: Mapping[str, Any]
) -> Command:
    """Parse a command as given to `Workflow.command`; raise WorkflowError if it is wrong."""
    split = tuple(split_words(words) if isinstance(words, str) else map(os.fspath, words))
    if not split:
        raise WorkflowError("command: no words")
    named = {_ONLY: outputs} if isinstance(outputs, str) else dict(outputs or {})
    for name in named.keys() & inputs.keys():
        raise WorkflowError(f"{split[0]}: {name!r} is both an input and an output")
    used = [_names(word, split[0], {*inputs, *named}) for word in split]
    used += [_names(template, split[0], inputs) for template in named.values()]
    for name in inputs.keys() - set().union(*used):
        raise WorkflowError(
            f"{split[0]}: input {name!r} is not used; write {{{name}}} where it belongs "
            "(cpus, memory, time … are given by resources={…})"
        )
    made = (("", outputs),) if isinstance(outputs, str) else tuple(named.items())
    command = Command(split, made, exported(split[0]))
    literal = [pair for pair in command.outputs if not list(_fields(pair[1]))]
    Command(split, tuple(literal)).made({}, "")
    return command


def _names(template: str, program: str, known: Collection[str]) -> set[str]:
    """Return the inputs and outputs a template uses; raise WorkflowError for an unknown one."""
    fields = list(_fields(template))
    for name, part in fields:
        if name in ("name", "after", "outputs", "resources") and name not in known:
            raise WorkflowError(
                f"{program}: {name}= is the node's own option; call the input {{{name}_}} instead"
            )
        if name not in known:
            raise WorkflowError(
                f"{program}: {{{name}}} in {template!r} is unknown{near(name, known)} "
                "(write {{ and }} for braces)"
            )
        if part is not None and part not in _PARTS:
            raise WorkflowError(f"{program}: {{{name}.{part}}}: known parts: {', '.join(_PARTS)}")
    return {name for name, _ in fields}


def split_words(text: str) -> list[str]:
    """Split text into words as a shell would; raise WorkflowError for operators like ``|``."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise WorkflowError(f"command {text!r}: {error}") from error
    if word := _SHELL_WORD.search(_QUOTED.sub("", text)):
        raise WorkflowError(
            f"command {text!r}: {word[0]!r} would be an argument, since no shell runs it; "
            "quote it, or write ['sh', '-c', '…'] if you want one"
        )
    return words


def _fields(template: str) -> Iterator[tuple[str, str | None]]:
    try:
        for _, field, spec, conversion in string.Formatter().parse(template):
            if spec or conversion:
                raise ValueError("values are inserted as they are; formats are not supported")
            if field is not None:
                name, dot, part = field.partition(".")
                yield name, part if dot else None
    except ValueError as error:
        raise WorkflowError(f"command: {template!r}: {error}") from error


def _filled(template: str, values: Mapping[str, Any]) -> list[str]:
    """Fill in one word: it stays one word, unless it is just the placeholder of a list."""
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
