"""``hpcpipe map`` as a workflow of one node: one command over many inputs."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import IO, Any

from hpcpipe.command import Command
from hpcpipe.errors import WorkflowError
from hpcpipe.inputs import Inputs, Source, parse
from hpcpipe.mapped import each
from hpcpipe.model import Resources
from hpcpipe.node import Node
from hpcpipe.workflow import Workflow


@dataclass(frozen=True)
class MappedCommand(Command):
    """A command in GNU parallel's words; each axis brings its part of a task's inputs."""

    inputs: Inputs | None = None

    def argv(self, values: Mapping[str, Any], folder: str) -> list[str]:
        """Put one task's inputs into the command."""
        assert self.inputs is not None
        del folder
        return list(self.inputs.render(tuple(chain.from_iterable(values.values()))))


class _Captured:
    """Opens the files that inputs come from, and keeps their text, so that a retry means the same
    inputs though the file was edited, or was standard input."""

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
    header: bool = False,
    bids: str | None = None,
    name: str | None = None,
    base_dir: str = "hpcpipe_runs",
    resources: Mapping[str, Any] | None = None,
    texts: dict[str, str] | None = None,
) -> Workflow:
    """Make the workflow of a ``hpcpipe map`` command line.

    ``texts`` holds the files the inputs are read from, by name; it is filled with those read now.
    Raises WorkflowError if unclear what to run.
    """
    captured = _Captured(texts)
    given = _subjects(bids, words, captured) if bids else None
    inputs = parse(words, lines=lines, header=header, given=given, open=captured)
    if texts is not None:
        texts.update(captured.texts)
    command = MappedCommand(inputs.command, (), inputs)
    node = name or _name(lines or inputs.command[0])
    workflow = Workflow(node, base_dir)
    axes = inputs.axes
    if len(set(axes)) < len(axes):
        raise WorkflowError(f"two inputs are called {axes[0]!r}; rename a column")
    columns = {
        axis: each(source.rows, axis, source.labels)
        for axis, source in zip(axes, inputs.sources, strict=True)
    }
    made = tuple(column.axis for column in columns.values() if column.axis is not None)
    workflow.nodes[node] = Node(
        node, command, columns, made, Resources.parse(**(resources or {})), folder=False
    )
    return workflow


def _subjects(dataset: str, words: Sequence[str], captured: _Captured) -> Source:
    """Make a source of a data set's subjects, or its sessions where the command asks for them."""
    from hpcpipe.bids import participants

    by_session = any("{session" in word for word in words)
    origin = f"--bids {dataset}"
    if origin not in captured.texts:  # else it is a retry, of the subjects there were
        rows = participants(dataset, by_session)
        captured.texts[origin] = "".join("\t".join(row) + "\n" for row in rows)
    rows = [tuple(line.split("\t")) for line in captured.texts[origin].splitlines()]
    return Source(origin, ("subject", "session")[: 1 + by_session], tuple(rows))


def _name(text: str) -> str:
    stem = os.path.splitext(os.path.basename(text))[0]
    cleaned = "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "_" for c in stem)
    return cleaned if cleaned[:1].isalpha() else f"map_{cleaned}"


def first_and_last(workflow: Workflow) -> list[list[str]]:
    """Give the first and the last command, for saying back what will run."""
    (node,) = workflow.nodes.values()
    assert isinstance(node.call, MappedCommand)
    rows = [{n: column.values[at] for n, column in node.arguments.items()} for at in (0, -1)]
    commands = [node.call.argv(row, "") for row in rows]
    return commands[:1] if node.size == 1 else commands
