"""Sphinx directives that take facts from the code and its commands, so that no page goes stale.

====================== ============================================================
``.. command::``       a command of hpcpipe and its output
``.. shapes::``        workflow files and the submissions that are planned for them
``.. site-keys::``     every key of a site file, from the types in ``hpcpipe.site``
``.. shipped-sites::`` the shipped site files with their descriptions, dates and sources
``.. abilities::``     what each scheduler can do, from its adapter
``.. manuals::``       the manual of each adapter, and of the modules that are named
``.. tried-on::``      what each was tried on, as recorded by the contract tests
``.. exit-codes::``    every error and its exit code, from ``hpcpipe.errors``
``.. reasons::``       why a task did not succeed
``.. fields::``        the fields of a dataclass
====================== ============================================================
"""

import json
import os
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from importlib import import_module
from inspect import getdoc
from itertools import groupby
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

import matrix
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import hpcpipe.errors
import hpcpipe.site
from hpcpipe.jobs import Reason
from hpcpipe.site.show import option_tables, table_of
from hpcpipe.values import Kind

Row = tuple[str, ...]


class Facts(SphinxDirective):
    """A directive that is replaced by reStructuredText."""

    has_content = True
    optional_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Parse what the directive writes."""
        return self.parse_text_to_nodes("\n".join(self.write()))

    def write(self) -> Iterator[str]:
        """Write lines of reStructuredText."""
        raise NotImplementedError

    def call(self, *words: str) -> str:
        """Run a command of hpcpipe in the folder of the pages, and return its output."""
        for word in words:
            if word.endswith(".py"):
                self.env.note_dependency(word)
        clean = {"PYTHONDONTWRITEBYTECODE": "1", "XDG_CONFIG_HOME": os.devnull, "COLUMNS": "80"}
        done = subprocess.run(
            [sys.executable, "-m", "hpcpipe", *words], cwd=self.env.srcdir, check=False,
            env=os.environ | clean, text=True, capture_output=True,
        )  # fmt: skip
        if done.returncode:
            raise self.error(f"hpcpipe {shlex.join(words)}: {done.stderr}")
        return done.stdout


def table(widths: str, head: Row, rows: Sequence[Row]) -> Iterator[str]:
    """Write a table; a cell may have several lines."""
    yield from (".. list-table::", f"   :widths: {widths}", "   :header-rows: 1", "")
    for row in (head, *rows):
        for at, cell in enumerate(row):
            lead = "   * - " if at == 0 else "     - "
            first, *more = cell.split("\n")
            yield lead + first
            yield from (" " * 7 + line for line in more)
    yield ""


class Command(Facts):
    """A command and its current output."""

    required_arguments = 1

    def write(self) -> Iterator[str]:
        """Show it as on a terminal."""
        command = " ".join(self.arguments)
        yield from (".. code-block:: console", "", f"   $ {command}")
        for line in self.call(*shlex.split(command)[1:]).splitlines():
            yield f"   {line}"


class Shapes(Facts):
    """Workflow files, each with the submissions that are planned for it."""

    def write(self) -> Iterator[str]:
        """Write a row for each file."""
        rows = [self._row(name) for name in self.arguments[0].split()]
        yield from table("18 8 8 66", ("shape", "tasks", "calls", "submissions"), rows)

    def _row(self, name: str) -> Row:
        plan = json.loads(self.call("plan", "--json", "--site", "slurm", name))
        source = Path(self.env.srcdir, name).read_text("utf-8")
        said = source.splitlines()[0].strip('"')
        submissions = "\n".join(f"| {line}" for line in _submissions(plan["batches"]))
        tasks, calls = str(plan["tasks"]), str(plan["calls"])
        return f"**{Path(name).stem}**\n{said}", tasks, calls, submissions


def _submissions(batches: list[dict[str, Any]]) -> Iterator[str]:
    """Yield what is submitted, with similar batches on one line."""
    numbers = {batch["id"]: number for number, batch in enumerate(batches)}

    def alike(batch: dict[str, Any]) -> tuple[Any, ...]:
        waits = batch["dependencies"]
        return batch["tasks"][0]["node"], *map(_wait, waits)

    for (node, *kinds), group in groupby(batches, key=alike):
        same = list(group)
        sizes = dict.fromkeys(batch["elements"] for batch in same)
        what = "1 job" if [*sizes] == [1] else f"array of {' or '.join(map(str, sizes))}"
        words = [_span(numbers[batch["id"]] for batch in same), f"{node}, {what}"]
        for at, kind in enumerate(kinds):
            above = [numbers[batch["dependencies"][at]["batch"]] for batch in same]
            words.append(f"after {kind} {_span(dict.fromkeys(above))}")
        yield ": ".join((words[0], ", ".join(words[1:])))


def _wait(wait: dict[str, Any]) -> str:
    if wait["kind"] == "each":
        return "each element of"
    if wait["element"] is not None:
        return "one element of"
    return "(relaxed) all of" if wait["relaxed"] else "all of"


def _span(numbers: Iterable[int]) -> str:
    listed = list(numbers)
    if len(listed) == 1:
        return f"[{listed[0]}]"
    return f"[{listed[0]}] to [{listed[-1]}]"


class SiteKeys(Facts):
    """Every key of a site file: its type, its default and its meaning."""

    def write(self) -> Iterator[str]:
        """Write one table for the top level, and one for each table of the file."""
        yield from self._table(hpcpipe.site.Site, "At the top of the file", "")
        for name, cls in option_tables().items():
            yield from self._table(cls, f"``[{name}]``", f"{getdoc(cls)}", f"{name}.")

    def _table(self, cls: type, title: str, lead: str, path: str = "") -> Iterator[str]:
        keys = hpcpipe.site.keys(cls)
        tables = [(key, inner) for key in keys if (inner := table_of(key))]
        inside = {key.name for key, _ in tables}
        rows = [_key(key) for key in keys if key.name not in inside]
        yield from (f".. rubric:: {title}", "", lead, "")
        yield from table("22 22 16 40", ("key", "type", "default", "meaning"), rows)
        for field, inner in tables:
            title = _title(f"{path}{field.name}", field.type)
            yield from self._table(inner, title, f"{getdoc(inner)}", f"{path}{field.name}.")


def _title(name: str, kind: Any) -> str:
    """Return the header of a table: ``[limits]``, ``[[queues]]``, ``[software.NAME]``."""
    origin = get_origin(get_args(kind)[0]) if get_origin(kind) is Annotated else None
    if origin is tuple:
        return f"``[[{name}]]``"
    return f"``[{name}.NAME]``" if origin is Mapping else f"``[{name}]``"


def _key(field: Field[Any]) -> Row:
    meaning, default = str(get_args(field.type)[-1]), "unset"
    if field.default is MISSING and field.default_factory is MISSING:
        default = "required"
    elif field.default not in (MISSING, None, "", ()) and "unset" not in meaning:
        default = f"``{json.dumps(field.default)}``"
    return f"``{field.name}``", _kind(field.type), default, meaning


def _kind(kind: Any) -> str:
    """Return the description of a type of `hpcpipe.site`."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        known = [one.words for one in arguments if isinstance(one, Kind)]
        return known[0] if known else _kind(arguments[0])
    if origin is tuple:
        return f"list: {_kind(arguments[0])}"
    if origin is Mapping:
        return f"table: {_kind(arguments[0])} = {_kind(arguments[1])}"
    return _kind(next(one for one in arguments if one is not NoneType))


class ShippedSites(Facts):
    """The shipped site files of real clusters, with their dates and sources."""

    def write(self) -> Iterator[str]:
        """Write a row for each file that names its sources."""
        rows = []
        for file in sorted(Path(self.env.srcdir, "../site-configs").glob("*.toml")):
            data = tomllib.loads(file.read_text("utf-8"))
            if "sources" in data:
                said = [data["description"], data["tried"].capitalize()]
                sources = [f"| {source}" for source in data["sources"]]
                words = "\n".join([*(f"| {one}." for one in said), *sources])
                rows.append((f"``{file.stem}``", str(data["as_of"]), words))
        yield from table("14 14 72", ("site", "as of", "description and sources"), rows)


class Abilities(Facts):
    """What each scheduler can do."""

    def write(self) -> Iterator[str]:
        """Write a row for each scheduler of the registry."""
        yield from table("16 18 20 10 18 10 8", matrix.ABLE, [*matrix.able()])


class Manuals(Facts):
    """The manual of each scheduler's adapter, as it stands at the head of its module."""

    def write(self) -> Iterator[str]:
        """Write what autodoc reads."""
        for name in matrix.REGISTRY:
            parts = [part for part in self.content if part.startswith(f"{name}.")]
            for module in (name, *parts):
                yield from (f".. automodule:: hpcpipe.schedulers.{module}", "")


class TriedOn(Facts):
    """What each scheduler's adapter was tried on, with the results."""

    def write(self) -> Iterator[str]:
        """Write a row for each scheduler of the registry."""
        self.env.note_dependency(str(matrix.RECORD))
        yield from table("18 32 12 38", matrix.TRIED, [*matrix.tried()])


class ExitCodes(Facts):
    """Every error that hpcpipe raises on purpose."""

    def write(self) -> Iterator[str]:
        """Write a row for each exit code."""
        kinds = [kind for kind in vars(hpcpipe.errors).values() if isinstance(kind, type)]
        errors = [kind for kind in kinds if issubclass(kind, hpcpipe.errors.HpcpipeError)]
        rows = [("0", "", "Success.")]
        rows += [(str(one.exit_status), f"``{one.__name__}``", getdoc(one) or "") for one in errors]
        rows += [("130", "", "Interrupted from the keyboard.")]
        yield from table("8 27 65", ("code", "in Python", "meaning"), rows)


class Reasons(Facts):
    """Why a task did not succeed, and what each reason means."""

    def write(self) -> Iterator[str]:
        """Write a row for each reason."""
        rows = [(str(reason), reason.about.meaning) for reason in Reason]
        yield from table("30 70", ("reason", "meaning"), rows)


class Fields(Facts):
    """The fields of a dataclass, with its docstring."""

    required_arguments = 1

    def write(self) -> Iterator[str]:
        """Write them as one list of names."""
        module, _, name = self.arguments[0].rpartition(".")
        cls = getattr(import_module(module), name)
        yield from (getdoc(cls) or "").splitlines()
        yield ""
        yield ", ".join(f"``{field.name}`` ({field.type})" for field in fields(cls)) + "."


def _call_for_each(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: Any) -> None:
    """Document the call of `each`, which is an object."""
    del app, what, options
    if name == "hpcpipe.each":
        lines[:] = (getdoc(type(obj).__call__) or "").splitlines()


def _show_examples(app: Sphinx, context: Any, lines: list[str]) -> None:
    """Show indented lines in a command's help, which are examples, literally."""
    del app, context
    for at, line in reversed([*enumerate(lines)]):
        if line.startswith("  "):
            lines[at:at] = ["::", ""]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives with Sphinx."""
    directives = {
        "command": Command,
        "shapes": Shapes,
        "site-keys": SiteKeys,
        "shipped-sites": ShippedSites,
        "abilities": Abilities,
        "manuals": Manuals,
        "tried-on": TriedOn,
        "exit-codes": ExitCodes,
        "reasons": Reasons,
        "fields": Fields,
    }
    for name, directive in directives.items():
        app.add_directive(name, directive)
    app.connect("autodoc-process-docstring", _call_for_each)
    app.connect("sphinx-click-process-description", _show_examples)
    return {"parallel_read_safe": True}
