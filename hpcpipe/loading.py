"""Workflows from where they are written: a file, or what an earlier run says of itself."""

from __future__ import annotations

from pathlib import Path

from hpcpipe.errors import UsageError, near
from hpcpipe.functions import load_file
from hpcpipe.record import DIRECT, RunRecord
from hpcpipe.workflow import Workflow


def load_workflow(spec: str) -> Workflow:
    """Load ``FILE`` or ``FILE:NAME``; relative folders in it mean the current one.

    A file that ends in .json is read as WfFormat. Raises UsageError where there is no workflow, or
    several and no name.
    """
    file, _, name = spec.partition(":")
    if file.endswith(".json"):
        from hpcpipe.graphs import from_wfformat

        return from_wfformat(file, base_dir="hpcpipe_runs")
    module = load_file(Path(file))
    found = {key: value for key, value in vars(module).items() if isinstance(value, Workflow)}
    if name and name not in found:
        raise UsageError(f"{file}: no workflow {name!r}{near(name, found)}")
    different = {id(workflow): key for key, workflow in found.items()}
    if not found:
        raise UsageError(f"{file}: defines no Workflow at its top level")
    if not name and len(different) > 1:
        raise UsageError(
            f"{file}: defines {len(different)} workflows; say which: "
            + " or ".join(f"{file}:{key}" for key in different.values())
        )
    workflow = found[name or next(iter(found))]
    workflow.source = str(Path(file).resolve())
    return workflow


def _named(file: str, name: str) -> Workflow:
    """Load the workflow of a name from a file that may define others."""
    for value in vars(load_file(Path(file))).values():
        if isinstance(value, Workflow) and value.name == name:
            value.source = file
            return value
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
            "make the same calls again there: only what is missing runs"
        )
    if not source.get("file"):
        raise UsageError(
            f"{record.workflow} was submitted from Python, not from a file; "
            "submit it there again: only what is missing runs"
        )
    if "name" in source:
        return _named(source["file"], source["name"])
    return load_workflow(source["file"])
