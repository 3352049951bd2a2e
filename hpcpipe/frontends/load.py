"""Workflows from where they are written: a file, or what an earlier run says of itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpcpipe.errors import UsageError, near
from hpcpipe.frontends.left_out import left_out
from hpcpipe.frontends.nipype_file import inner, is_nipype, read
from hpcpipe.graph.loading import Reached
from hpcpipe.graph.workflow import Workflow
from hpcpipe.store.recent import change_to, suggested
from hpcpipe.store.record import DIRECT, RunRecord
from hpcpipe.views.text import show


def load_workflow(spec: str, arguments: Sequence[str] = (), again: bool = False) -> Workflow:
    """Load ``FILE`` or ``FILE:NAME``; relative folders in it mean the current one.

    ``arguments`` are the file's own, as if it were run by itself. A workflow of nipype becomes one
    of ours; ``again`` goes on with its last run. A file that ends in .json is read as WfFormat.
    Raises UsageError where there is no workflow, or several and no name.
    """
    file, _, name = spec.partition(":")
    if file.endswith(".json"):
        from hpcpipe.frontends.foreign_graphs import from_wfformat

        return from_wfformat(file, base_dir="hpcpipe_runs")
    defined, ran = _read(file, arguments)
    found = _workflows(defined)
    if name and name not in found:
        raise UsageError(f"{file}: no workflow {name!r}{near(name, found)}")
    if not found and not ran:
        raise UsageError(f"{file}: defines no Workflow at its top level")
    different = {id(workflow): key for key, workflow in _outermost(found).items()}
    if not name and not ran and len(different) > 1:
        raise UsageError(
            f"{file}: defines {len(different)} workflows; say which: "
            + " or ".join(f"{file}:{key}" for key in different.values())
        )
    if ran and not name:
        for note in left_out(Path(file), ran, defined, found):
            show(f"hpcpipe: {note}", err=True)
    chosen = found[name] if name else ran.workflow if ran else found[next(iter(different.values()))]
    return _ours(chosen, str(Path(file).resolve()), {}, again)


def _workflows(defined: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in defined.items()
        if isinstance(value, Workflow) or is_nipype(value)
    }


def _outermost(found: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the workflows of nipype that are part of another one."""
    parts = {id(part) for one in found.values() if is_nipype(one) for part in inner(one)}
    return {key: value for key, value in found.items() if id(value) not in parts}


def _ours(workflow: Any, file: str, usual: Mapping[str, Any], again: bool) -> Workflow:
    if is_nipype(workflow):
        from hpcpipe.nipype.capture import take

        return take(workflow, file, usual, again)
    assert isinstance(workflow, Workflow)
    workflow.source = file
    return workflow


def _read(file: str, arguments: Sequence[str]) -> tuple[dict[str, Any], Reached | None]:
    """Execute a file as if it were run with these arguments; see `read`."""
    before, sys.argv = sys.argv, [file, *arguments]
    try:
        return read(Path(file))
    finally:
        sys.argv = before


def _named(file: str, name: str, usual: Mapping[str, Any], arguments: Sequence[str]) -> Workflow:
    """Load the workflow of a name from a file that may define others."""
    defined, ran = _read(file, arguments)
    first = [ran.workflow] if ran else []
    for value in (*first, *_workflows(defined).values()):
        if value.name == name:
            return _ours(value, file, usual, again=True)
    raise UsageError(
        f"{file}: no longer defines a workflow {name!r} at its top level; "
        "submit it again from where it was: only what is missing runs"
    )


def load_source(record: RunRecord, file: str = "", folder: Path | None = None) -> Workflow:
    """Make again the workflow that a run was made from, for `hpcpipe retry --reload`.

    Its file (or ``file`` in its place) is read anew, from the folder it was submitted from and
    with the same arguments; ``folder`` is the run's. Raises UsageError where there is none to read.
    """
    source, again = record.source, suggested(folder, "retry --reload FILE")
    if not os.path.isdir(record.cwd):
        raise UsageError(
            f"{record.cwd}: {record.workflow} was submitted from this folder, which is gone; "
            "make it anew, or go where the file is now and type: hpcpipe submit FILE"
        )
    file = os.path.abspath(file) if file else source.get("file", "")
    change_to(record.cwd)
    if "map" in source and not file:
        from hpcpipe.frontends.map import map_workflow

        return map_workflow(**source["map"])
    if DIRECT in source:
        raise UsageError(
            f"{record.workflow} was submitted call by call from an Executor: there is no file to "
            "reload; leave out --reload, or make the same calls again there"
        )
    if not file:
        raise UsageError(
            f"{record.workflow} was submitted from Python, not from a file; leave out --reload, "
            f"or name its file: {again}"
        )
    arguments = source.get("arguments", ())
    if "name" in source:
        return _named(file, source["name"], source.get("nipype", {}), arguments)
    return load_workflow(file, arguments, again=True)
