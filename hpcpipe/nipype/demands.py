"""What nipype's nodes ask of a scheduler, in hpcpipe's words."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from math import ceil
from typing import Any

from hpcpipe.errors import WorkflowError
from hpcpipe.model import Resources
from hpcpipe.node import read_resources

_WORDS = Resources._fields
_GIB = 1024  # MiB
_SMALLEST = 512  # MiB; a process that has imported nipype has used up to half of it
_UNSAID = 0.2  # GB; what nipype takes where a node says nothing
_SBATCH = {
    "c": "cpus", "cpus-per-task": "cpus", "mem": "memory", "t": "time", "time": "time",
    "p": "queue", "partition": "queue", "A": "account", "account": "account", "gpus": "gpus",
    "G": "gpus",
}  # fmt: skip
_NOT_OURS = {"J", "job-name", "o", "output", "e", "error"}  # hpcpipe names jobs and logs itself


def demands(node: Any, usual: Mapping[str, Any], at_a_time: int = 1) -> Resources:
    """Say what a node asks for: its ``plugin_args``, over its own figures, over what is usual.

    ``at_a_time`` sub-nodes of a MapNode take so many times as much. Raises WorkflowError for
    amounts that cannot be read.
    """
    said = node.plugin_args if isinstance(node.plugin_args, Mapping) else {}
    own: dict[str, Any] = {}
    if node.n_procs * at_a_time > 1:
        own["cpus"] = node.n_procs * at_a_time
    if node.mem_gb != _UNSAID:
        own["memory"] = max(ceil(node.mem_gb * _GIB * at_a_time), _SMALLEST)
    if node.is_gpu_node():
        own["gpus"] = 1
    return read_resources({**asked(usual), **own, **asked(said)}, node.fullname)


def asked(said: Mapping[str, Any]) -> dict[str, Any]:
    """Pick what is asked of the scheduler out of ``plugin_args``, ``sbatch_args`` included."""
    found = dict(_sbatch(said["sbatch_args"])) if "sbatch_args" in said else {}
    return {**found, **{word: said[word] for word in _WORDS if said.get(word) is not None}}


def _sbatch(text: str) -> Iterator[tuple[str, Any]]:
    """Read sbatch's options; raises WorkflowError for one that would be lost."""
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
                f"or say what the node needs in plugin_args: {', '.join(_WORDS)}"
            )
        if name in ("t", "time") and value.isdecimal():
            value = f"{value}m"  # sbatch counts in minutes
        yield _SBATCH[name], int(value) if _SBATCH[name] in ("cpus", "gpus") else value
