"""What each task of a workflow is to do, made from the user's own code and values.

Python tasks get their arguments, pickled; commands a line of sh, so that they need no Python on the
node. Nothing in it depends on the submission: `hpcpipe.submit.task_file` adds that.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from pickle import dumps
from typing import Any

from hpcpipe.errors import WorkflowError
from hpcpipe.graph.axes import Axis, folder_name, places, size
from hpcpipe.graph.command import Command
from hpcpipe.graph.each import Each
from hpcpipe.graph.hints import as_files, each_path, hint_of, names_file
from hpcpipe.graph.node import Node, Output
from hpcpipe.graph.returned import ReturnsFiles
from hpcpipe.keys.pickling import Own, pickle_value
from hpcpipe.keys.references import Folder, Gathered, Number, Part, Upstream
from hpcpipe.store.plan import NewPayloads, NodeRecord, compared_parents


class Writer:
    """Writes down what tasks are to do. ``records`` has the nodes upstream, at the latest when the
    payloads are asked for; ``home`` is the run's folder."""

    def __init__(self, records: Mapping[str, NodeRecord], own: Own, home: Path, cwd: Path) -> None:
        self._records, self._own, self._home, self._cwd = records, own, home, cwd
        self._hints: dict[tuple[str, str], Any] = {}  # of arguments, by node and name

    def payloads(self, node: Node, *, sh: bool) -> NewPayloads:
        """Promise what the tasks of a node are to do."""
        return NewPayloads(partial(self._lines if sh else self._python, node))

    # --- Python -------------------------------------------------------------------------------

    def _python(self, node: Node) -> list[bytes]:
        # Of axes whose length is not known, a row serves all places.
        axes = [axis for axis in node.axes if axis.source is None]
        fixed = {
            name: self._literal(node, name, value)
            for name, value in node.arguments.items()
            if not isinstance(value, Each | Number) and not _has_outputs(value)
        }
        call: Any = node.call
        if not isinstance(call, Command) and names_file(hint_of(call, "return")):
            call = ReturnsFiles(call)
        with self._own.by_value():
            return [
                self._pickled(node.name, (call, fixed)),
                *(
                    self._pickled(node.name, self._varying(node, axes, at))
                    for at in range(size(axes))
                ),
            ]

    def _varying(self, node: Node, axes: Sequence[Axis], task: int) -> dict[str, Any]:
        here = {axis.name: place for axis, place in places(axes, task)}
        position = count()
        varying: dict[str, Any] = {}
        for name, value in node.arguments.items():
            if isinstance(value, Each):
                assert value.axis is not None
                varying[name] = self._literal(node, name, value.values[here[value.axis.name]])
            elif isinstance(value, Number):
                varying[name] = value
            elif _has_outputs(value):
                varying[name] = self._to_come(value, position)
        if isinstance(node.call, Command):
            varying["hpcpipe_folder"] = Folder() if node.grows else self._folder(node, task)
        return varying

    def _literal(self, node: Node, name: str, value: Any) -> Any:
        """Anchor relative paths: the task may run in a folder of its own."""
        if isinstance(node.call, Command):
            return value  # a command runs where it was submitted
        if (node.name, name) not in self._hints:
            self._hints[node.name, name] = hint_of(node.call, name)
        value = as_files(value, self._hints[node.name, name])
        return each_path(value, lambda path: Path(self._cwd, path))

    def _to_come(self, value: Any, position: Iterator[int]) -> Any:
        if isinstance(value, Output):
            kind = Part if value.along else Gathered if value.gathered else Upstream
            return kind(next(position), value.select)
        if isinstance(value, list | tuple):
            items = [self._to_come(item, position) for item in value]
            named = hasattr(value, "_fields")  # a namedtuple is made from its items one by one
            return type(value)(*items) if named else type(value)(items)
        if isinstance(value, dict):
            return {k: self._to_come(item, position) for k, item in value.items()}
        return value

    def _pickled(self, node: str, value: Any) -> bytes:
        try:
            return pickle_value(value, self._own)
        except Exception as error:
            raise WorkflowError(f"{node}: an input cannot be pickled: {error}") from error

    # --- commands -----------------------------------------------------------------------------

    def _lines(self, node: Node) -> list[bytes]:
        lines = (self._line(node, task) for task in range(node.size))
        return [b"", *(line.encode("utf-8", "surrogateescape") for line in lines)]

    def _line(self, node: Node, task: int) -> str:
        """Write one element as assignments and words for sh to eval, all quoted, on one line."""
        assert isinstance(node.call, Command)
        values = self._values(node, task)
        folder = self._folder(node, task)
        made = [os.path.join(folder, path) for path in node.call.made(values, folder).values()]
        settings = {
            "node": node.name,
            "folder": folder,
            "value": _pickled_text(node.call.value(values, folder)),
            "outputs": "\n".join(as_pickled(os.path.relpath(path, folder)) for path in made),
        }
        words = [f"{name}={quote(text)}" for name, text in settings.items()]
        words.append(f'made() {{ set -- {joined(made)}; each_made "$@"; }}')
        if taken := self._taken(node, task):
            names = quote("\n".join(map(as_pickled, taken)))
            words.append(f'takes() {{ names={names}; set -- {joined(taken)}; each_taken "$@"; }}')
        words.append(f"set -- {joined(node.call.argv(values, folder))}")
        return "; ".join(words) + "\n"

    def _values(self, node: Node, task: int) -> dict[str, Any]:
        """Return a static command's inputs, upstream outputs included."""
        here = {axis.name: place for axis, place in places(node.axes, task)}
        position = iter(self._records[node.name].edges)

        def value_of(value: Any) -> Any:
            if isinstance(value, Each):
                assert value.axis is not None
                return value.values[here[value.axis.name]]
            if isinstance(value, Output):
                parents = next(position).parents(task)
                found = [self._made_by(value, parent) for parent in parents]
                return found if value.gathered else found[0]
            if isinstance(value, list | tuple):
                return [value_of(item) for item in value]
            return value

        return {name: value_of(value) for name, value in node.arguments.items()}

    def _taken(self, node: Node, task: int) -> list[str]:
        """List the files that a command takes of those upstream, and that nobody is to change."""
        of = {output.node.name: output.node for output in node.upstreams}
        found: list[str] = []
        for name, parent in compared_parents(self._records, self._records[node.name], task):
            above, folder = of[name], self._folder(of[name], parent)
            assert isinstance(above.call, Command)
            found += above.call.made(self._values(above, parent), folder).values()
        return found

    def _made_by(self, output: Output, task: int) -> Any:
        call = output.node.call
        assert isinstance(call, Command)
        value = call.value(self._values(output.node, task), self._folder(output.node, task))
        for step in output.select:
            value = value[step]
        return value

    def _folder(self, node: Node, task: int) -> str:
        if not node.folder:
            return ""
        return str(self._home / node.name / folder_name(node.axes, task))


def _has_outputs(value: Any) -> bool:
    if isinstance(value, Output):
        return True
    if isinstance(value, Mapping):
        return any(map(_has_outputs, value.values()))
    return isinstance(value, list | tuple) and any(map(_has_outputs, value))


def _pickled_text(value: Any) -> str:
    """Pickle in the text form, which sh can print, and in ASCII, whatever the locale there."""
    return re.sub(
        rb"[\x80-\xff]", lambda byte: b"\\u%04x" % byte[0][0], dumps(value, protocol=0)
    ).decode("ascii")


def as_pickled(text: str) -> str:
    """Write text as it stands in the text form of a pickle, in ASCII and on one line."""
    return re.sub(
        r"[^ -\[\]-~]",
        lambda one: f"\\u{ord(one[0]):04x}" if one[0] < "\U00010000" else f"\\U{ord(one[0]):08x}",
        text,
    )


def quote(text: str) -> str:
    """Quote for sh, on one line: a newline comes from the variable the script keeps it in."""
    return shlex.quote(text).replace("\n", "'\"$newline\"'")


def joined(words: Sequence[str]) -> str:
    """Quote words for sh."""
    return " ".join(map(quote, words))
