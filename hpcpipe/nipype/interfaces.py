"""nipype interfaces as nodes of a workflow: ``wf.add(fsl.BET(frac=0.5), in_file=…)``.

Mistakes in their inputs are reported here, when the node is added. nipype is imported only where an
interface is created and where it runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpcpipe.errors import WorkflowError, near
from hpcpipe.graph.each import Each
from hpcpipe.graph.node import TaskOptions
from hpcpipe.nipype.interface import InterfaceCall, as_files, must_exist
from hpcpipe.nipype.resources import software_of
from hpcpipe.nipype.spmcall import SpmCall, check_texts
from hpcpipe.resources import Resources


def make_call(
    name: str, interface: Any, inputs: Mapping[str, Any], folder: Path | str = ""
) -> tuple[InterfaceCall, dict[str, Any], Resources]:
    """Return a node's call of an interface, its arguments with files as `Path`, and its resources.

    ``folder`` is the one below which it runs. Raises WorkflowError for an unknown or missing input,
    or one that its program cannot be given.
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
        check_texts(name, [folder, *interface.inputs.get_traitsfree().values()])
        for key, value in arguments.items():
            check_texts(f"{name}: {key}", value.values if isinstance(value, Each) else [value])
        kind = SpmCall
    return kind.of(interface), arguments, resources_of(interface)


def resources_of(interface: Any) -> Resources:
    """Return the resources of an interface: those set by `hpcpipe.task` override its inputs'."""
    inputs = interface.inputs.get_traitsfree()
    cpus = inputs.get("num_threads") or inputs.get("n_procs")
    gpus = 1 if inputs.get("use_cuda") or inputs.get("use_gpu") else None
    program = software_of(interface)
    software = None if program is None else (program,)
    said: TaskOptions = getattr(interface, "__hpcpipe__", TaskOptions(Resources(), None))
    return said.resources.over(Resources(cpus=cpus, gpus=gpus, software=software))


def _each_as_files(value: Any) -> Any:
    if isinstance(value, Each):
        return Each([as_files(one) for one in value.values], value.axis, value.labels)
    return as_files(value)
