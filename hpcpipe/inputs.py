"""What ``hpcpipe map`` runs: a command and its inputs, in GNU parallel's words.

``:::`` gives inputs, ``::::`` files of them, a ``+`` behind either zips them with the source
before, and a second source multiplies. No shell reads the words: an input stays one argument,
whatever is in it. Where parallel drops or guesses (unequal zips, ``{3}`` of two), this refuses.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise, product
from typing import IO

from hpcpipe.errors import WorkflowError, near
from hpcpipe.labels import labels_for_rows

Row = tuple[str, ...]
Open = Callable[[str], IO[str]]

# ${1} is the shell's own. {..} and {/..}, for .nii.gz, are parallel's with --plus.
_REFERENCE = re.compile(r"(?<!\$)\{(?P<name>[^{}]*?)(?P<cut>//|/?\.{0,2})\}")
_NUMBER_OR_CODE = re.compile(r"-?\d+|[#%]|=.*=")  # parallel's own that are of no use here
_HINT = "; to use a shell, hand it the input as an argument: sh -c 'gzip -k \"$1\"' sh {}"


@dataclass(frozen=True)
class Source:
    """The inputs along one axis: one row a place, longer where sources are zipped."""

    origin: str  # as the user wrote it, for messages
    columns: Row  # names by a header; "" where there is none
    rows: tuple[Row, ...]

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """A name for every row."""
        return labels_for_rows(self.rows)


@dataclass(frozen=True)
class Inputs:
    """A command with replacement strings, and what to put in their place."""

    command: Row
    sources: tuple[Source, ...]

    def __iter__(self) -> Iterator[Row]:
        """Give the inputs of one task after the other, the last source fastest."""
        for rows in product(*(source.rows for source in self.sources)):
            yield tuple(chain.from_iterable(rows))

    @cached_property
    def columns(self) -> Row:
        """The names of one task's inputs."""
        return tuple(chain.from_iterable(source.columns for source in self.sources))

    @property
    def axes(self) -> tuple[str, ...]:
        """A name for every source: its header's where that can be an axis's, else input1, ...."""
        heads = enumerate((source.columns[0] for source in self.sources), 1)
        return tuple(h if h.isascii() and h.isidentifier() else f"input{i}" for i, h in heads)

    def render(self, row: Row) -> Row:
        """Put one task's inputs into the command; a word ``{}`` becomes a word for each of them."""

        def values(match: re.Match[str]) -> list[str]:
            chosen = _choose(match["name"], self.columns)
            return [match[0]] if chosen is None else [_trim(v, match["cut"]) for v in row[chosen]]

        words: list[str] = []
        for word in self.command:
            whole = _REFERENCE.fullmatch(word)
            words += values(whole) if whole else [_REFERENCE.sub(lambda m: values(m)[0], word)]
        return tuple(words)


def parse(
    words: Sequence[str],
    *,
    lines: str | None = None,
    header: bool = False,
    given: Source | None = None,
    open: Open,
) -> Inputs:
    """Read the words after ``hpcpipe map --``, and the files that they name.

    ``lines`` names a file of whole command lines instead. With ``header`` each source begins with
    its name, and a file is a table: with commas if it is called ``.csv``, else with tabs. ``open``
    opens a file as text, standard input for ``-``.
    ``given`` comes before the other sources. Raises WorkflowError if unclear what to run.
    """
    if lines is not None:
        if words or header or given:
            raise WorkflowError("--lines brings whole commands; leave out the others and --header")
        return _command_lines(lines, open)
    marks = [i for i, word in enumerate(words) if word in (":::", ":::+", "::::", "::::+")]
    command = tuple(words[: marks[0]] if marks else words)
    if not command or not (marks or given):
        raise WorkflowError("give a command and inputs: hpcpipe map -- gzip -k {} ::: *.nii")
    sources = [given] if given else []
    for start, end in pairwise([*marks, len(words)]):
        for source in _sources(words[start], words[start + 1 : end], header, open):
            zips = words[start].endswith("+") and sources
            sources.append(_zipped(sources.pop(), source) if zips else source)
    return _checked(Inputs(command, tuple(sources)))


def _sources(mark: str, given: Sequence[str], header: bool, open: Open) -> list[Source]:
    if not given:
        raise WorkflowError(f"nothing after {mark}; does the pattern match any file?")
    if mark.startswith("::::"):
        return [_source(f"{mark} {name}", _table(name, header, open), header) for name in given]
    return [_source(f"{mark} {given[0]} ...", [(value,) for value in given], header)]


def _table(name: str, header: bool, open: Open) -> list[Row]:
    lines = _read(name, open)
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
    for place, row in enumerate(rows, 2):
        if len(row) != len(columns):
            counts = f"{len(row)} columns, the header {len(columns)}"
            raise WorkflowError(f"{origin}: row {place} has {counts}; make them agree")
    return Source(origin, columns, tuple(rows))


def _read(name: str, open: Open) -> list[str]:
    """Read a file's lines, less empty ones at its end and what Windows puts around them."""
    try:
        with open(name) as stream:
            text = stream.read().removeprefix("\ufeff").rstrip("\r\n")
    except OSError as error:
        raise WorkflowError(f"cannot read inputs from {name}: {error.strerror}") from error
    # Not splitlines(), which also cuts at form feeds and Unicode's separators.
    return [line.removesuffix("\r") for line in text.split("\n")] if text else []


def _zipped(left: Source, right: Source) -> Source:
    if len(left.rows) != len(right.rows):
        counts = f"{len(right.rows)} inputs to zip with {len(left.rows)} of {left.origin}"
        raise WorkflowError(f"{right.origin}: {counts}; give as many, or leave out the +")
    rows = tuple(one + other for one, other in zip(left.rows, right.rows, strict=True))
    return Source(f"{left.origin} {right.origin}", left.columns + right.columns, rows)


def _command_lines(name: str, open: Open) -> Inputs:
    """Read a file of command lines, as NIH swarm, dSQ and qbatch do; labels are line numbers."""
    lines = _read(name, open)
    numbered = iter(enumerate(lines, 1))
    rows: list[Row] = []
    for number, line in numbered:
        if line.strip() and not line.lstrip().startswith("#"):
            while line.endswith(" \\"):  # swarm, like the shell, joins such a line to the next
                line += "\n" + next(numbered, (0, ""))[1]
            rows.append((f"{number:0{len(str(len(lines)))}}", line))
    return Inputs(("sh", "-c", "{2}"), (_source(f"--lines {name}", rows, header=False),))


def _checked(inputs: Inputs) -> Inputs:
    """Append ``{}`` to a command without replacement strings; raise where one makes no sense."""
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
            if chosen == slice(None) and len(columns) > 1 and word != match[0]:
                raise WorkflowError(f"{word}: {len(columns)} inputs a task; say which, as in {{1}}")
    _refuse_code(inputs, referring)
    return inputs if referring else Inputs((*command, "{}"), inputs.sources)


def _refuse_code(inputs: Inputs, referring: set[str]) -> None:
    """Raise WorkflowError where the command is a shell's, or an input would become shell code."""
    words = inputs.command
    if len(words) == 1 and re.search(r"\s", words[0]) and re.search(r"[{}|&;<>$`]", words[0]):
        raise WorkflowError(f"{words[0]!r} is one word, a program's name; unquote it{_HINT}")
    values = (value for source in inputs.sources for row in source.rows for value in row)
    risky = next((value for value in values if not re.fullmatch(r"[\w@%+=:,./-]*", value)), None)
    for shell, flag, code in zip(words, words[1:], words[2:], strict=False):
        if risky and code in referring and re.fullmatch(r"(.*/)?\w*sh -\w*c", f"{shell} {flag}"):
            raise WorkflowError(f"{shell} {flag} would read {risky!r} as code{_HINT}")


def _choose(name: str, columns: Row) -> slice | None:
    """Find the inputs that a replacement string stands for; None if it is only text in braces."""
    if not name:
        return slice(None)
    if name.isdecimal() and 0 < int(name) <= len(columns):
        return slice(int(name) - 1, int(name))
    if name in columns:
        if columns.count(name) > 1:
            raise WorkflowError(f"{{{name}}}: two columns are called so; rename one")
        return slice(columns.index(name), columns.index(name) + 1)
    if _NUMBER_OR_CODE.fullmatch(name) or (any(columns) and re.fullmatch(r"[^\W\d][\w-]*", name)):
        known = near(name, filter(None, columns))
        raise WorkflowError(f"{{{name}}} stands for no input; a task has {len(columns)}{known}")
    return None


def _trim(value: str, cut: str) -> str:
    """Apply ``.`` (less suffix), ``/`` (file name) or ``//`` (folder), all as GNU parallel does."""
    if cut == "//":
        folder = value.rstrip("/").rpartition("/")[0].rstrip("/")
        return folder or ("/" if value.startswith("/") else ".")
    name = value.rpartition("/")[2] if cut.startswith("/") else value
    return re.sub(r"\.[^/.]*" * cut.count(".") + r"\Z", "", name)
