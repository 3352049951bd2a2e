"""A batch's task file: what each of its elements is to do, packed into one immutable file.

Its name ends in a digest of what it says, so that nothing edited after submission can make an
element run what was not submitted. Python tasks have the binary form that `hpcpipe.worker` reads;
commands have one line of sh an element, and need no Python on the node.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from pickle import dumps
from typing import Any

from hpcpipe import worker
from hpcpipe.axes import folder_name, places
from hpcpipe.command import Command
from hpcpipe.errors import WorkflowError
from hpcpipe.files import SIZE
from hpcpipe.functions import Own, pickle_value
from hpcpipe.mapped import Each
from hpcpipe.node import Node, Output
from hpcpipe.pending import Gathered, Upstream
from hpcpipe.plan import DONE, NodePlan, Plan, file_like, is_static
from hpcpipe.planner.batch import Batch
from hpcpipe.rundir import Listing, RunDir


@dataclass(frozen=True)
class TaskFile:
    """The content of a task file, and the batch id it gives its batch."""

    batch: str
    content: bytes


class TaskWriter:
    """Writes the task files of one plan's batches."""

    def __init__(self, plan: Plan, rundir: RunDir, run: int, cwd: str, settle: int) -> None:
        self._plan = plan
        self._rundir = rundir
        self._run = run
        self._cwd = cwd
        self._settle = settle
        self._batch_of: dict[tuple[str, int], tuple[str, str | None]] = {}  # and pack
        self._beside: set[tuple[str, int]] = set()  # in packs that are being written
        self._listings: dict[str, Listing] = {}

    def write(self, batch: Batch) -> TaskFile:
        """Make a batch's task file; its upstream batches must have been made before."""
        self._beside = (
            set()
            if batch.starts is None
            else {(one.node.name, task) for one, task in batch.members()}
        )
        make = self._commands if is_static(batch.nodes[0].node) else self._python
        with self._plan.own.by_value():
            content = make(batch)
        digest = blake2b(self._digested(content), digest_size=4).hexdigest()
        name = f"{batch.name}-{digest}"
        position = 0
        for number, (node, task) in enumerate(batch.members()):
            if batch.starts is not None and number == batch.starts[position + 1]:
                position += 1
            pack = None if batch.starts is None else f"packs/{name}.{position}.pack"
            self._batch_of[node.node.name, task] = name, pack
        return TaskFile(name, content)

    def _digested(self, content: bytes) -> bytes:
        if not content.startswith(worker.MAGIC):
            return content
        start = len(worker.MAGIC) + 8
        length = int.from_bytes(content[start - 8 : start], "little")
        return content[start : start + length]

    # --- Python -------------------------------------------------------------------------------

    def _python(self, batch: Batch) -> bytes:
        own = self._plan.own
        number = {node.node.name: at for at, node in enumerate(batch.nodes)}
        payloads = [
            self._payload(node, task, number[node.node.name], own) for node, task in batch.members()
        ]
        index = b""
        offset = 0
        for payload in payloads:
            digest = blake2b(payload, digest_size=16).digest()
            index += offset.to_bytes(8, "little") + len(payload).to_bytes(8, "little") + digest
            offset += len(payload)
        header = dumps(
            {
                "run_number": self._run,
                "count": len(payloads),
                "starts": None if batch.starts is None else list(batch.starts),
                "lanes": batch.lanes,
                "strand": batch.strand,
                "gpus": batch.resources.gpus or 0,
                "index": blake2b(index).digest(),
                "python": sys.implementation.cache_tag,
                "executable": sys.executable,
                "path": [folder for folder in sys.path if folder],
                "cwd": self._cwd,
                "run": str(self._rundir.home),
                "settle": self._settle,
                "calls": [self._call(one.node, own) for one in batch.nodes],
            },
            4,
        )
        length = len(header).to_bytes(8, "little")
        return b"".join((worker.MAGIC, length, header, index, *payloads))

    def _call(self, node: Node, own: Own) -> bytes:
        """Pickle what all tasks of a node share: the function, and its fixed inputs."""
        fixed = {
            name: self._literal(node, name, value)
            for name, value in node.arguments.items()
            if not isinstance(value, Each) and not _has_outputs(value)
        }
        return _pickled(node.name, (node.call, fixed), own)

    def _payload(self, plan: NodePlan, task: int, call: int, own: Own) -> bytes:
        node = plan.node
        here = {axis.name: place for axis, place in places(node.axes, task)}
        position = iter(range(len(plan.edges)))
        varying: dict[str, Any] = {}
        for name, value in node.arguments.items():
            if isinstance(value, Each):
                assert value.axis is not None
                varying[name] = self._literal(node, name, value.values[here[value.axis.name]])
            elif _has_outputs(value):
                varying[name] = self._to_come(plan, task, value, position)
        folder = self.folder(node, task)
        if isinstance(node.call, Command):
            varying["hpcpipe_folder"], folder = folder, ""
        arguments = _pickled(node.name, varying, own)
        needs = tuple(self._needs(plan, task))
        return dumps((node.name, plan.key(task), folder, call, needs, arguments), 4)

    def _literal(self, node: Node, name: str, value: Any) -> Any:
        """Anchor relative paths: the task may run in a folder of its own."""
        if isinstance(node.call, Command):
            return value  # a command runs where it was submitted
        value = file_like(node, name, value)
        return Path(self._cwd, value) if isinstance(value, Path) else value

    def _to_come(self, plan: NodePlan, task: int, value: Any, position: Iterator[int]) -> Any:
        if isinstance(value, Output):
            edge = plan.edges[next(position)]
            above = self._plan.nodes[edge.upstream]
            if value.gathered:
                keys = b"".join(
                    above.keys[at * SIZE : at * SIZE + SIZE] for at in edge.parents(task)
                )
                folder = str(self._rundir.results / edge.upstream)
                packed = [self._packed(above, at) or "" for at in edge.parents(task)]
                return Gathered(folder, keys, value.select, packed if any(packed) else [])
            parent = edge.base[task]
            path = str(self._rundir.result(edge.upstream, above.key(parent)))
            return Upstream(self._packed(above, parent) or path, value.select)
        if isinstance(value, list | tuple):
            items = [self._to_come(plan, task, item, position) for item in value]
            named = hasattr(value, "_fields")  # a namedtuple is made from its items one by one
            return type(value)(*items) if named else type(value)(items)
        if isinstance(value, dict):
            return {k: self._to_come(plan, task, item, position) for k, item in value.items()}
        return value

    def _needs(self, plan: NodePlan, task: int) -> Iterator[tuple[str, str]]:
        """Name every upstream outcome that must be there, and the batch it may fail in.

        Of one that is to be in the same pack, whose name is not known yet, only the key.
        """
        for edge in plan.edges:
            above = self._plan.nodes[edge.upstream]
            for parent in edge.parents(task):
                if (edge.upstream, parent) in self._beside:
                    yield f"#{above.key(parent)}", ""
                    continue
                batch, pack = self._batch_of.get((edge.upstream, parent), ("", None))
                if not batch and parent in above.in_flight:
                    batch, pack = above.in_flight[parent].batch, above.in_flight[parent].pack
                if batch:  # else it is done: nothing to look for
                    key = above.key(parent)
                    yield f"{pack}#{key}" if pack else f"results/{edge.upstream}/{key}.pkl", batch

    def _packed(self, above: NodePlan, task: int) -> str | None:
        """Say where in which pack an upstream outcome is or will be; None if it is in none."""
        name, key = above.node.name, above.key(task)
        if (name, task) in self._beside:
            return f"#{key}"
        _, pack = self._batch_of.get((name, task), ("", None))
        if task in above.in_flight:
            pack = above.in_flight[task].pack
        if pack:
            return f"{self._rundir.home / pack}#{key}"
        if above.fates[task] != DONE:
            return None
        if not self._listings:
            self._listings = self._rundir.list_all(self._plan.nodes)
        return self._listings[name].packed.get(key)

    def folder(self, node: Node, task: int) -> str:
        """Give a task's own working folder, or nothing where it wants none."""
        if not node.folder:
            return ""
        return str(self._rundir.folder / node.name / folder_name(node.axes, task))

    # --- commands -----------------------------------------------------------------------------

    def _commands(self, batch: Batch) -> bytes:
        lines = [self._line(node, task) for node, task in batch.members()]
        return f"# run {self._run}\n".encode() + b"".join(
            line.encode("utf-8", "surrogateescape") for line in lines
        )

    def _line(self, plan: NodePlan, task: int) -> str:
        """Write one element as assignments and words for sh to eval, all quoted, on one line."""
        node = plan.node
        assert isinstance(node.call, Command)
        values = self._values(node, task)
        folder = self.folder(node, task)
        made = [os.path.join(folder, path) for path in node.call.made(values, folder).values()]
        needs = [f"{path}:{batch}" for path, batch in self._needs(plan, task)]
        settings = {
            "node": node.name,
            "key": plan.key(task),
            "folder": folder,
            "value": _pickled_text(node.call.value(values, folder)),
        }
        words = [f"{name}={_quote(text)}" for name, text in settings.items()]
        words.append(f'needs() {{ set -- {_words(needs)}; each_need "$@"; }}')
        words.append(f'made() {{ set -- {_words(made)}; each_made "$@"; }}')
        words.append(f"set -- {_words(node.call.argv(values, folder))}")
        return "; ".join(words) + "\n"

    def _values(self, node: Node, task: int) -> dict[str, Any]:
        """Give a static command's inputs, upstream outputs included."""
        here = {axis.name: place for axis, place in places(node.axes, task)}
        position = iter(self._plan.nodes[node.name].edges)

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

    def _made_by(self, output: Output, task: int) -> Any:
        call = output.node.call
        assert isinstance(call, Command)
        value = call.value(self._values(output.node, task), self.folder(output.node, task))
        for step in output.select:
            value = value[step]
        return value


def _has_outputs(value: Any) -> bool:
    if isinstance(value, Output):
        return True
    if isinstance(value, Mapping):
        return any(map(_has_outputs, value.values()))
    return isinstance(value, list | tuple) and any(map(_has_outputs, value))


def _pickled(node: str, value: Any, own: Own) -> bytes:
    try:
        return pickle_value(value, own)
    except Exception as error:
        raise WorkflowError(f"{node}: an input cannot be pickled: {error}") from error


def _pickled_text(value: Any) -> str:
    """Pickle in the text form, which sh can print, and in ASCII, whatever the locale there."""
    return re.sub(
        rb"[\x80-\xff]", lambda byte: b"\\u%04x" % byte[0][0], dumps(value, protocol=0)
    ).decode("ascii")


def _quote(text: str) -> str:
    """Quote for sh, on one line: a newline comes from the variable the script keeps it in."""
    return shlex.quote(text).replace("\n", "'\"$newline\"'")


def _words(words: Sequence[str]) -> str:
    return " ".join(map(_quote, words))
