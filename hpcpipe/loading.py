"""Workflows from where they are written: a file, or what an earlier run says of itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hpcpipe.errors import UsageError, near
from hpcpipe.nipype.reading import inner, is_nipype, read
from hpcpipe.record import DIRECT, RunRecord
from hpcpipe.workflow import Workflow


def load_workflow(spec: str, again: bool = False) -> Workflow:
    """Load ``FILE`` or ``FILE:NAME``; relative folders in it mean the current one.

    A workflow of nipype becomes one of ours; ``again`` goes on with its last run. A file that ends
    in .json is read as WfFormat. Raises UsageError where there is no workflow, or several and no
    name.
    """
    file, _, name = spec.partition(":")
    if file.endswith(".json"):
        from hpcpipe.graphs import from_wfformat

        return from_wfformat(file, base_dir="hpcpipe_runs")
    defined, ran = read(Path(file))
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
    chosen = found[name] if name else ran[0] if ran else found[next(iter(different.values()))]
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
        from hpcpipe.nipype.taking import take

        return take(workflow, file, usual, again)
    assert isinstance(workflow, Workflow)
    workflow.source = file
    return workflow


def _named(file: str, name: str, usual: Mapping[str, Any]) -> Workflow:
    """Load the workflow of a name from a file that may define others."""
    defined, ran = read(Path(file))
    candidates: Iterable[Any] = (*ran, *_workflows(defined).values())
    for value in candidates:
        if value.name == name:
            return _ours(value, file, usual, again=True)
    raise UsageError(
        f"{file}: no longer defines a workflow {name!r} at its top level; "
        "submit it again from where it was: only what is missing runs"
    )


def load_source(record: RunRecord) -> Workflow:
    """Make again the workflow that a run was made from.

    A file is read anew, from the folder it was submitted from. Raises UsageError where a run was
    submitted from Python and has no file to read.
    """
    import os

    source = record.source
    os.chdir(record.cwd)
    if "map" in source:
        from hpcpipe.mapping import map_workflow

        return map_workflow(**source["map"])
    if DIRECT in source:
        raise UsageError(
            f"{record.workflow} was submitted call by call from an Executor; "
            "make the same calls again there, and ask for more memory or time where that "
            "ran out: only what is missing runs"
        )
    if not source.get("file"):
        raise UsageError(
            f"{record.workflow} was submitted from Python, not from a file; "
            "submit it there again: only what is missing runs"
        )
    if "name" in source:
        return _named(source["file"], source["name"], source.get("nipype", {}))
    return load_workflow(source["file"], again=True)
