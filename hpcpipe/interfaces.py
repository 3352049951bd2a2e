"""Interfaces of nipype as nodes of our own workflows: ``wf.add(fsl.BET(frac=0.5), in_file=…)``.

Mistakes in their inputs are told here, when the node is made. nipype is imported where an interface
is made and where it runs, nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpcpipe.errors import WorkflowError, near
from hpcpipe.interface import InterfaceCall, as_files, must_exist
from hpcpipe.mapped import Each
from hpcpipe.model import Resources
from hpcpipe.node import TaskOptions, leaves
from hpcpipe.spmcall import SpmCall

_SOFTWARE = ("spm", "fsl", "freesurfer", "afni", "ants")  # by their modules in nipype.interfaces


def make_call(
    name: str, interface: Any, inputs: Mapping[str, Any]
) -> tuple[InterfaceCall, dict[str, Any], Resources]:
    """Make a node's call of an interface, its arguments with files as `Path`, and what it asks for.

    Raises WorkflowError for an unknown or missing input.
    """
    traits = interface.inputs.traits(transient=None)
    known = interface.inputs.copyable_trait_names()
    for given in inputs:
        if given not in known:
            raise WorkflowError(f"{name}: no input {given!r}{near(given, known)}")
    have = {*inputs, *interface.inputs.get_traitsfree()}
    for needed, trait in traits.items():
        if trait.mandatory and have.isdisjoint({needed, *(trait.xor or ())}):
            raise WorkflowError(f"{name}: input {needed!r} is missing; write {needed}=…")
    arguments = {
        key: _each_as_files(value) if must_exist(interface.inputs, key) else value
        for key, value in inputs.items()
    }
    kind: type[InterfaceCall] = InterfaceCall
    if software_of(interface) == "spm":
        _refuse_compressed(name, arguments)
        kind = SpmCall
    return kind.of(interface), arguments, resources_of(interface)


def resources_of(interface: Any) -> Resources:
    """Say what an interface asks for: what `hpcpipe.task` said of it, over what its inputs say."""
    inputs = interface.inputs.get_traitsfree()
    cpus = inputs.get("num_threads") or inputs.get("n_procs")
    gpus = 1 if inputs.get("use_cuda") or inputs.get("use_gpu") else None
    program = software_of(interface)
    software = None if program is None else (program,)
    said: TaskOptions = getattr(interface, "__hpcpipe__", TaskOptions(Resources(), None))
    return said.resources.over(Resources(cpus=cpus, gpus=gpus, software=software))


def software_of(interface: Any) -> str | None:
    """Name the program of the site's catalogue that an interface drives, where it is clear."""
    parts = type(interface).__module__.split(".")
    found = parts[2] if parts[:2] == ["nipype", "interfaces"] and len(parts) > 2 else ""
    return found if found in _SOFTWARE else None


def _refuse_compressed(name: str, arguments: Mapping[str, Any]) -> None:
    for key, value in arguments.items():
        for one in leaves(value.values if isinstance(value, Each) else [value]):
            if isinstance(one, Path) and one.name.endswith(".gz"):
                raise WorkflowError(
                    f"{name}: {key}: SPM cannot read {one.name}, which is compressed; unpack it "
                    "first, for example by nipype.algorithms.misc.Gunzip as a node"
                )


def _each_as_files(value: Any) -> Any:
    if isinstance(value, Each):
        return Each([as_files(one) for one in value.values], value.axis, value.labels)
    return as_files(value)
