"""The resources of nipype nodes in hpcpipe's terms."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from math import ceil
from typing import Any

from hpcpipe.errors import WorkflowError
from hpcpipe.graph.node import read_resources
from hpcpipe.resources import Resources

_WORDS = Resources._fields
_SOFTWARE = ("spm", "fsl", "freesurfer", "afni", "ants")  # as modules of nipype.interfaces
_GIB = 1024  # MiB
_SMALLEST = 512  # MiB; a process that has imported nipype uses up to half of it
_UNSAID = 0.2  # GB; nipype's default for a node that sets nothing
_SBATCH = {
    "c": "cpus", "cpus-per-task": "cpus", "mem": "memory", "t": "time", "time": "time",
    "p": "queue", "partition": "queue", "A": "account", "account": "account", "gpus": "gpus",
    "G": "gpus",
}  # fmt: skip
_NOT_OURS = {"J", "job-name", "o", "output", "e", "error"}  # hpcpipe names jobs and logs itself


def demands(node: Any, usual: Mapping[str, Any], at_a_time: int = 1) -> Resources:
    """Return a node's resources: its ``plugin_args``, then its own attributes, then ``usual``.

    It requests the software that its interface runs, unless one of these sets others.
    ``at_a_time`` sub-nodes of a MapNode multiply them. Raises WorkflowError for amounts that cannot
    be read.
    """
    said = node.plugin_args if isinstance(node.plugin_args, Mapping) else {}
    own: dict[str, Any] = {}
    program = software_of(node.interface)
    software = {} if program is None else {"software": [program]}
    if node.n_procs * at_a_time > 1:
        own["cpus"] = node.n_procs * at_a_time
    if node.mem_gb != _UNSAID:
        own["memory"] = max(ceil(node.mem_gb * _GIB * at_a_time), _SMALLEST)
    if node.is_gpu_node():
        own["gpus"] = 1
    return read_resources({**software, **asked(usual), **own, **asked(said)}, node.fullname)


def software_of(interface: Any) -> str | None:
    """Return the program of the site's catalogue that an interface runs, if it is known.

    A class of the user's that extends one of nipype's runs the same.
    """
    for kind in type(interface).__mro__:
        parts = kind.__module__.split(".")
        if parts[:2] == ["nipype", "interfaces"] and len(parts) > 2 and parts[2] in _SOFTWARE:
            return parts[2]
    return None


def asked(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return the resources in ``plugin_args``, including ``sbatch_args``."""
    found = dict(_sbatch(said["sbatch_args"])) if "sbatch_args" in said else {}
    return {**found, **{word: said[word] for word in _WORDS if said.get(word) is not None}}


def _sbatch(text: str) -> Iterator[tuple[str, Any]]:
    """Parse options of sbatch; raise WorkflowError for one that has no counterpart."""
    words = iter(shlex.split(text))
    for word in words:
        name, equals, value = word.lstrip("-").partition("=")
        if not word.startswith("--") and len(name) > 1:
            name, value = name[0], name[1:]  # -c4
        elif not equals:
            value = next(words, "")
        if name in _NOT_OURS:
            continue
        if name not in _SBATCH:
            raise WorkflowError(
                f"sbatch_args: {word} has no counterpart here; set it in the site file, "
                f"or set what the node needs in plugin_args: {', '.join(_WORDS)}"
            )
        if name in ("t", "time") and value.isdecimal():
            value = f"{value}m"  # sbatch counts in minutes
        yield _SBATCH[name], int(value) if _SBATCH[name] in ("cpus", "gpus") else value
