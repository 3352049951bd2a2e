"""``hpcpipe map`` as a workflow of one node: one command over many inputs."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import IO, Any

from hpcpipe.errors import WorkflowError
from hpcpipe.frontends.parallel_syntax import Inputs, Source, parse, words_of_line
from hpcpipe.graph.axes import places
from hpcpipe.graph.command import Command, exported
from hpcpipe.graph.each import each
from hpcpipe.graph.node import Node
from hpcpipe.graph.workflow import Workflow
from hpcpipe.keys.words import file_in
from hpcpipe.resources import Resources


@dataclass(frozen=True)
class MappedCommand(Command):
    """A command with GNU parallel's replacement strings; each axis provides part of the inputs."""

    inputs: Inputs | None = None

    @property
    def identity(self) -> tuple[Any, ...]:
        """Its words, and the columns that they refer to by name."""
        return (*super().identity, self.inputs and self.inputs.columns)

    def argv(self, values: Mapping[str, Any], folder: str) -> list[str]:
        """Return the command with one task's inputs."""
        del folder
        return self.started(self.filled(values))

    def filled(self, values: Mapping[str, Any]) -> list[str]:
        """Return the words with one task's inputs, as a person wrote them."""
        assert self.inputs is not None
        return list(self.inputs.render(tuple(chain.from_iterable(values.values()))))

    def made(self, values: Mapping[str, Any], folder: str) -> dict[str, str]:
        """Return the paths of the files that a task must make, by their pattern."""
        assert self.inputs is not None
        inputs, row = self.inputs, tuple(chain.from_iterable(values.values()))
        lines = any(source.commands for source in inputs.sources)
        if lines and self.outputs:
            inputs, row = words_of_line(row[0])
        made = {}
        for name, pattern in self.outputs:
            words = inputs.render(row, (pattern,))
            if len(words) != 1 or not words[0]:
                raise WorkflowError(f"--makes {pattern}: names {len(words)} files; write {{1}}")
            if lines and re.search(r"[$`*?\[{;&|<>]|^~", words[0]):
                raise WorkflowError(f"--makes {pattern}: only a shell knows what {words[0]} is")
            made[name] = os.path.abspath(os.path.join(folder, words[0]))
        return made


def _check_apart(workflow: Workflow) -> None:
    """Raise WorkflowError if two tasks would make the same file."""
    (node,) = workflow.nodes.values()
    assert isinstance(node.call, MappedCommand)
    seen: set[str] = set()
    for row in _rows(node) if node.call.outputs else ():
        for (_, pattern), path in zip(
            node.call.outputs, node.call.made(row, "").values(), strict=True
        ):
            if path in seen:
                raise WorkflowError(f"--makes {pattern}: two tasks would make {path}")
            seen.add(path)


def _rows(node: Node) -> Iterator[Mapping[str, Any]]:
    """Yield the values of each task."""
    for task in range(node.size):
        here = {axis.name: place for axis, place in places(node.axes, task)}
        yield {name: one.values[here[one.axis.name]] for name, one in node.arguments.items()}


class _Captured:
    """Opens input files and keeps their text for a retry, as they may change or be stdin."""

    def __init__(self, texts: Mapping[str, str] | None = None) -> None:
        self.texts = dict(texts or {})

    def __call__(self, name: str) -> IO[str]:
        if name not in self.texts:
            if name == "-":
                self.texts[name] = sys.stdin.read()
            else:
                with open(name, encoding="utf-8", errors="surrogateescape", newline="") as file:
                    self.texts[name] = file.read()
        return io.StringIO(self.texts[name])


def map_workflow(
    words: Sequence[str],
    *,
    lines: str | None = None,
    shell: str | None = None,
    header: bool = False,
    files: Sequence[str] = (),
    link: bool = False,
    colsep: str | None = None,
    bids: str | None = None,
    makes: Sequence[str] = (),
    name: str | None = None,
    base_dir: str = "hpcpipe_runs",
    resources: Mapping[str, Any] | None = None,
    texts: dict[str, str] | None = None,
) -> Workflow:
    """Return the workflow of a ``hpcpipe map`` command line.

    ``makes`` are patterns of the files that each task must make. ``texts`` holds the contents of
    input files by name; files that are read are added to it. Raises WorkflowError if it is unclear
    what to run, or two tasks would make the same file.
    """
    captured = _Captured(texts)
    given = _subjects(bids, words, captured) if bids else None
    inputs = parse(
        words, lines=lines, shell=shell, header=header, files=files, link=link, colsep=colsep,
        given=given, open=captured,
    )  # fmt: skip
    if texts is not None:
        texts.update(captured.texts)
    outputs = tuple((pattern if len(makes) > 1 else "", pattern) for pattern in makes)
    command = MappedCommand(inputs.command, outputs, exported(inputs.command[0]), inputs)
    node = name or _name(lines or inputs.command[0])
    workflow = Workflow(node, base_dir)
    axes = inputs.axes
    if len(set(axes)) < len(axes):
        raise WorkflowError(f"two inputs are named {axes[0]!r}; rename a column")
    columns = {
        axis: each(source.rows, axis, source.labels)
        for axis, source in zip(axes, inputs.sources, strict=True)
    }
    made = tuple(column.axis for column in columns.values() if column.axis is not None)
    workflow.nodes[node] = Node(
        node, command, columns, made, Resources.parse(**(resources or {})), folder=False
    )
    _check_apart(workflow)
    return workflow


def _subjects(dataset: str, words: Sequence[str], captured: _Captured) -> Source:
    """Return a data set's subjects as a source, or its sessions if the command refers to them."""
    from hpcpipe.graph.bids import participants

    by_session = any("{session" in word for word in words)
    origin = f"--bids {dataset}"
    if origin not in captured.texts:  # else it is a retry, with the subjects of the first run
        rows = participants(dataset, by_session)
        captured.texts[origin] = "".join("\t".join(row) + "\n" for row in rows)
    rows = [tuple(line.split("\t")) for line in captured.texts[origin].splitlines()]
    return Source(origin, ("subject", "session")[: 1 + by_session], tuple(rows))


def _name(text: str) -> str:
    stem = os.path.splitext(os.path.basename(text))[0]
    cleaned = "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "_" for c in stem)
    return cleaned if cleaned[:1].isalpha() else f"map_{cleaned}"


def uncounted(workflow: Workflow) -> Iterator[str]:
    """Yield what a command refers to that does not count when it is decided what runs again."""
    (node,) = workflow.nodes.values()
    assert isinstance(node.call, MappedCommand)
    assert node.call.inputs is not None
    if folders := [word for word in node.call.words[1:] if os.path.isdir(word)]:
        yield f"changes in {' '.join(folders)} do not count"
    scripts = (word for word in node.call.words[1:] if not (file_in(word) or os.path.isdir(word)))
    lines = any(source.commands for source in node.call.inputs.sources)
    within = {"within a word": scripts, "in the lines": (r[0] for r in node.call.inputs if lines)}
    for where, texts in within.items():
        if found := _file_within(texts):
            yield f"changes of files {where}, such as {found}, do not count"


def find_missing(workflow: Workflow) -> list[str]:
    """Return inputs that name no file, though others in the list that look like them do.

    What is paired with the first column (``:::+``) may be what a task makes.
    """
    (node,) = workflow.nodes.values()
    assert isinstance(node.call, MappedCommand)
    assert node.call.inputs is not None
    found = []
    for source in node.call.inputs.sources:
        firsts = dict.fromkeys(row[0] for row in source.rows if not source.commands)
        words = [word for word in firsts if _look(word)]
        files = {_look(word) for word in words if os.path.isfile(word)}
        found += [one for one in words if _look(one) in files and not os.path.lexists(one)]
    rows = _rows(node) if found and node.call.outputs else ()
    made = {path for row in rows for path in node.call.made(row, "").values()}
    return [one for one in found if os.path.abspath(one) not in made]


def _look(word: str) -> tuple[str, int] | None:
    """Return what files of one kind have in common; None for a word that looks like no path."""
    folder, suffix = os.path.dirname(word), os.path.splitext(word)[1]
    return (suffix or folder, word.count("/")) if suffix or folder else None


def _file_within(texts: Iterable[str]) -> str | None:
    """Return the first file that shell code names."""
    words = chain.from_iterable(re.split(r"[\s'\"=;<>|&()]+", text) for text in texts)
    return next((word for word in words if os.path.isfile(word)), None)


def first_and_last(workflow: Workflow) -> list[list[str]]:
    """Return the first and the last command, to show what will run."""
    (node,) = workflow.nodes.values()
    assert isinstance(node.call, MappedCommand)
    rows = [{n: column.values[at] for n, column in node.arguments.items()} for at in (0, -1)]
    assert isinstance(node.call, MappedCommand)
    commands = [node.call.filled(row) for row in rows]
    return commands[:1] if node.size == 1 else commands
