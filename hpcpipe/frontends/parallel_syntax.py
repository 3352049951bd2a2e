"""The command line of ``hpcpipe map``: a command and its inputs, in the syntax of GNU parallel.

``:::`` introduces inputs, ``::::`` files of inputs; a ``+`` pairs them with the source before,
else they form a product. No shell interprets the command: an input stays one argument, whatever it
contains. Where parallel drops or guesses (unequal lists, ``{3}`` of two), this refuses.
"""

from __future__ import annotations

import csv
import os
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from glob import glob
from itertools import chain, pairwise, product
from typing import IO

from hpcpipe.errors import WorkflowError, near
from hpcpipe.graph.labels import label_of_line, labels_for, labels_for_rows
from hpcpipe.quantities import counted

Row = tuple[str, ...]
Open = Callable[[str], IO[str]]

# ${1} belongs to the shell. parallel has {..} and {/..}, for .nii.gz, with --plus only.
_REFERENCE = re.compile(r"(?<!\$)\{(?P<name>[^{}]*?)(?P<cut>//|/?\.{0,2})\}")
_NUMBER_OR_CODE = re.compile(r"-?\d+|=.*=")  # forms of parallel that are not supported
_NUMBER = "#"  # the column of a task's number, if the command refers to it
MARKS = (":::", ":::+", "::::", "::::+")
_PATTERN = r"\S*(?:[*?]|\[\S+\]\S*[./])\S*"  # of file names
_SHELL = "bash"  # which swarm and dSQ run such files by
_HINT = "; to use a shell, pass it the input as an argument: sh -c 'gzip -k \"$1\"' sh {}"


@dataclass(frozen=True)
class Source:
    """The inputs along one axis: one row per position, with a column for each zipped source."""

    origin: str  # as the user wrote it, for messages
    columns: Row  # names from a header; "" without one
    rows: tuple[Row, ...]
    commands: bool = False  # the rows are command lines

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """A label for every row."""
        if self.commands:
            return labels_for(self.rows, lambda row: label_of_line(row[0]))  # type: ignore[index]
        return labels_for_rows(self.rows, self.columns)


@dataclass(frozen=True)
class Inputs:
    """A command with replacement strings, and the inputs that replace them."""

    command: Row
    sources: tuple[Source, ...]

    def __iter__(self) -> Iterator[Row]:
        """Yield the inputs of each task, the last source fastest."""
        for rows in product(*(source.rows for source in self.sources)):
            yield tuple(chain.from_iterable(rows))

    @cached_property
    def columns(self) -> Row:
        """The names of one task's inputs."""
        return tuple(chain.from_iterable(source.columns for source in self.sources))

    @property
    def axes(self) -> tuple[str, ...]:
        """A name for every source: its header's, if valid for an axis, else input1, ...."""
        heads = enumerate((source.columns[0] for source in self.sources), 1)
        return tuple(h if h.isascii() and h.isidentifier() else f"input{i}" for i, h in heads)

    def render(self, row: Row, words: Row | None = None) -> Row:
        """Return the command, or other words, with one task's inputs; a word ``{}`` becomes one
        word per input."""

        def values(match: re.Match[str]) -> Sequence[str]:
            chosen = _choose(match["name"], self.columns)
            return [match[0]] if chosen is None else [_trim(v, match["cut"]) for v in row[chosen]]

        filled: list[str] = []
        for word in self.command if words is None else words:
            whole = _REFERENCE.fullmatch(word)
            filled += values(whole) if whole else [_REFERENCE.sub(lambda m: values(m)[0], word)]
        return tuple(filled)


def parse(
    words: Sequence[str],
    *,
    lines: str | None = None,
    shell: str | None = None,
    header: bool = False,
    files: Sequence[str] = (),
    link: bool = False,
    colsep: str | None = None,
    given: Source | None = None,
    open: Open,
) -> Inputs:
    """Parse the words after ``hpcpipe map --``, and read the files that they name.

    ``lines`` names a file of whole command lines for ``shell`` instead. With ``header`` each source
    begins with its name, and a file is a table, separated by commas if its name ends in ``.csv``,
    else by tabs, or at ``colsep``, a regular expression that splits all inputs into columns.
    ``files`` are files of inputs, before those in ``words``; with ``link`` all sources are paired.
    ``open`` opens a file as text, standard input for ``-``. ``given`` is put before the other
    sources. Raises WorkflowError if it is unclear what to run.
    """
    if lines is not None:
        if words or header or given or files:
            raise WorkflowError("--lines gives whole commands; omit inputs and --header")
        return _command_lines(lines, shell or _SHELL, open)
    if shell is not None:
        raise WorkflowError(
            "--shell is for --lines; or write: hpcpipe map -- bash -c '...' bash {}"
        )
    words = [*words[: _first_mark(words)], *chain(*(("::::", one) for one in files)),
             *words[_first_mark(words) :]]  # fmt: skip
    split = _splitter(colsep)
    marks = [i for i, word in enumerate(words) if word in MARKS]
    command = tuple(words[: marks[0]] if marks else words)
    if not command or not (marks or given):
        raise WorkflowError("give a command and inputs: hpcpipe map -- gzip -k {} ::: *.nii")
    sources = [given] if given else []
    for start, end in pairwise([*marks, len(words)]):
        for source in _sources(words[start], words[start + 1 : end], header, split, open):
            zips = (link or words[start].endswith("+")) and sources
            sources.append(_zipped(sources.pop(), source) if zips else source)
    inputs = Inputs(command, tuple(sources))
    numbered = any("{#}" in word for word in command)
    return _checked(_numbered(inputs) if numbered else inputs)


def _numbered(inputs: Inputs) -> Inputs:
    """Number the tasks from 1, in a last column; several sources become one, which has them all."""
    rows = tuple((*row, str(number)) for number, row in enumerate(inputs, 1))
    origin = " ".join(source.origin for source in inputs.sources)
    return Inputs(inputs.command, (Source(origin, (*inputs.columns, _NUMBER), rows),))


def _first_mark(words: Sequence[str]) -> int:
    """Return where the inputs begin."""
    return next((at for at, word in enumerate(words) if word in MARKS), len(words))


def _splitter(colsep: str | None) -> re.Pattern[str] | None:
    try:
        return re.compile(colsep) if colsep is not None else None
    except re.error as error:
        raise WorkflowError(f"--colsep {colsep}: not a regular expression: {error}") from error


def _sources(
    mark: str, given: Sequence[str], header: bool, split: re.Pattern[str] | None, open: Open
) -> list[Source]:
    if not given:
        raise WorkflowError(f"nothing after {mark}; does the pattern match any file?")
    if mark.startswith("::::"):
        tables = ((name, _table(name, header, split, open)) for name in given)
        return [_source(f"{mark} {name}", table, header) for name, table in tables]
    _refuse_pattern(given)
    return [_source(f"{mark} {given[0]} ...", [_row(value, split) for value in given], header)]


def _row(line: str, split: re.Pattern[str] | None) -> Row:
    return tuple(split.split(line)) if split else (line,)


def _refuse_pattern(given: Sequence[str]) -> None:
    """Raise WorkflowError for a file name pattern: the shell passes on one that matches nothing."""
    for value in given:
        if re.fullmatch(_PATTERN, value) and not (os.path.lexists(value) or glob(value)):
            hint = "if it is meant as it is, write it in a file: :::: FILE"
            raise WorkflowError(f"{value}: no file matches; {hint}")


def _table(name: str, header: bool, split: re.Pattern[str] | None, open: Open) -> list[Row]:
    lines = _read(name, open)
    if split:
        return [_row(line, split) for line in lines]
    if not header or not name.lower().endswith(".csv"):
        return [tuple(line.split("\t")) if header else (line,) for line in lines]
    try:
        return [tuple(row) for row in csv.reader(f"{line}\n" for line in lines)]
    except csv.Error as error:
        raise WorkflowError(f"{name}: not a CSV table: {error}") from error


def _source(origin: str, rows: list[Row], header: bool) -> Source:
    if len(rows) < 1 + header:
        raise WorkflowError(f"{origin}: no inputs; give at least one")
    columns = rows.pop(0) if header else ("",) * len(rows[0])
    for place, row in enumerate(rows, 1 + header):
        if len(row) != len(columns):
            counts = f"{counted(len(row), 'column')}, the first {len(columns)}"
            raise WorkflowError(f"{origin}: row {place} has {counts}; the numbers must agree")
    return Source(origin, columns, tuple(rows))


def _read(name: str, open: Open) -> list[str]:
    """Return a file's lines without trailing empty ones, a byte order mark or carriage returns."""
    try:
        with open(name) as stream:
            text = stream.read().removeprefix("\ufeff").rstrip("\r\n")
    except OSError as error:
        raise WorkflowError(f"cannot read inputs from {name}: {error.strerror}") from error
    # Not splitlines(), which also splits at form feeds and Unicode separators.
    return [line.removesuffix("\r") for line in text.split("\n")] if text else []


def _zipped(left: Source, right: Source) -> Source:
    if len(left.rows) != len(right.rows):
        inputs = counted(len(right.rows), "input")
        counts = f"{inputs} to zip with {len(left.rows)} of {left.origin}"
        raise WorkflowError(f"{right.origin}: {counts}; give equal numbers, or omit the +")
    rows = tuple(one + other for one, other in zip(left.rows, right.rows, strict=True))
    return Source(f"{left.origin} {right.origin}", left.columns + right.columns, rows)


def _command_lines(name: str, shell: str, open: Open) -> Inputs:
    """Parse a file of command lines, as for NIH swarm, dSQ and qbatch."""
    lines = iter(_read(name, open))
    rows: list[Row] = []
    for line in lines:
        if line.strip() and not line.lstrip().startswith("#"):
            while line.endswith(" \\"):  # as in swarm and the shell, the line continues
                line += "\n" + next(lines, "")
            rows.append((line,))
    source = _source(f"--lines {name}", rows, header=False)
    return Inputs((shell, "-c", "{}"), (replace(source, commands=True),))


def words_of_line(line: str) -> tuple[Inputs, Row]:
    """Return the words of a command line as inputs: the program is the first one."""
    try:
        words = tuple(shlex.split(line, comments=True))
    except ValueError as error:
        raise WorkflowError(f"{line!r}: {error}") from error
    return Inputs((), (Source(line, ("",) * len(words), (words,)),)), words


def _checked(inputs: Inputs) -> Inputs:
    """Append ``{}`` to a command without replacement strings; raise if one is invalid."""
    command, columns = inputs.command, inputs.columns
    heads = {cell for s in inputs.sources for v in s.rows[0] for cell in re.split(r"[\t,]", v)}
    referring = set()
    for word in command:
        for match in _REFERENCE.finditer(word):
            chosen = _choose(match["name"], columns)
            if chosen is not None:
                referring.add(word)
            elif match["name"] in heads:
                raise WorkflowError(f"{match[0]} is in the first line of the inputs; add --header")
            count = len(columns) - (_NUMBER in columns)
            if not match["name"] and count > 1 and word != match[0]:
                raise WorkflowError(f"{word}: {count} inputs per task; choose one: {{1}}")
    _refuse_code(inputs, referring)
    return inputs if referring else Inputs((*command, "{}"), inputs.sources)


def _refuse_code(inputs: Inputs, referring: set[str]) -> None:
    """Raise WorkflowError if the command is shell code, or an input would become shell code."""
    words = inputs.command
    if len(words) == 1 and re.search(r"\s", words[0]) and re.search(r"[{}|&;<>$`]", words[0]):
        raise WorkflowError(f"{words[0]!r} is one word, which names a program; unquote it{_HINT}")
    values = (value for source in inputs.sources for row in source.rows for value in row)
    risky = next((value for value in values if not re.fullmatch(r"[\w@%+=:,./-]*", value)), None)
    for shell, flag, code in zip(words, words[1:], words[2:], strict=False):
        if risky and code in referring and re.fullmatch(r"(.*/)?\w*sh -\w*c", f"{shell} {flag}"):
            raise WorkflowError(f"{shell} {flag} would read {risky!r} as code{_HINT}")


def _choose(name: str, columns: Row) -> slice | None:
    """Return the inputs that a replacement string refers to; None if it is only text in braces."""
    count = len(columns) - (_NUMBER in columns)
    if not name:
        return slice(count)
    if name == "%":
        raise WorkflowError(
            "{%} is the number of a job slot, which a scheduler does not have; {#} is the task's"
        )
    if name.isdecimal() and 0 < int(name) <= count:
        return slice(int(name) - 1, int(name))
    if name in columns:
        if columns.count(name) > 1:
            raise WorkflowError(f"{{{name}}}: two columns have this name; rename one")
        return slice(columns.index(name), columns.index(name) + 1)
    if _NUMBER_OR_CODE.fullmatch(name) or (
        any(columns[:count]) and re.fullmatch(r"[^\W\d][\w-]*", name)
    ):
        known = near(name, filter(None, columns[:count]))
        raise WorkflowError(f"{{{name}}} refers to no input; a task has {count}{known}")
    return None


def _trim(value: str, cut: str) -> str:
    """Apply ``.`` (drop the suffix), ``/`` (file name) or ``//`` (folder) as GNU parallel does."""
    if cut == "//":
        folder = value.rstrip("/").rpartition("/")[0].rstrip("/")
        return folder or ("/" if value.startswith("/") else ".")
    name = value.rpartition("/")[2] if cut.startswith("/") else value
    return re.sub(r"\.[^/.]*" * cut.count(".") + r"\Z", "", name)
