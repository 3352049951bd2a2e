"""HTCondor's submit description of a batch, a file beside the script that holds it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hpcpipe.indices import parse_indices
from hpcpipe.schedulers.base import launch

_MARK = "#HTCONDOR "
# What exceeded its memory or time is held, and so is what could not be started. A task that could
# still tell of it is asked about no more, and a continuation waits for it: nobody would find it
# there. So it is removed; what could not be started only after some time, as a pool may release
# such jobs by itself, and never what a hand has held (1, 15).
_GRACE = 600  # seconds
_REMOVE = (
    "periodic_remove = JobStatus == 5 && (member(HoldReasonCode, {34, 46, 47})"
    " || HoldReasonCode == 21 && HoldReasonSubCode =?= 102"
    " || !member(HoldReasonCode, {1, 15})"
    f" && time() - EnteredCurrentStatus > {_GRACE})"
)


class Description(NamedTuple):
    """A batch's submit description by its path, and what the script has for the DAG instead."""

    path: str
    indices: Sequence[int] | None
    throttle: str


def describe(script: Path) -> Description:
    """Write beside a script the submit description that it holds.

    Each of its lines ``#HTCONDOR`` is one. What is said there for the DAG is in macros of ours,
    ``hpcpipe_array`` and ``hpcpipe_throttle``, of which HTCondor makes nothing.
    """
    # A path of plain characters: nobody need spell the others in a DAG, nor those of its folder.
    path = f"{script.parent.name}/{re.sub(r'[^A-Za-z0-9-]', '_', script.stem)}.sub"
    lines = script.read_text("utf-8", "surrogateescape").splitlines()
    said = [line.removeprefix(_MARK) for line in lines if line.startswith(_MARK)]
    macros = dict(re.findall(r"^hpcpipe_(\w+) *= *(.*)$", "\n".join(said), re.M))
    line = launch(script).replace("'", "''")  # as HTCondor has a quote within quotes
    run = ("executable = /bin/sh", f"arguments = \"-c '{line}'\"")
    ours = ["universe = vanilla", "notification = Never", *run, _REMOVE]
    text = "\n".join((*ours, *said, "queue", ""))
    write_whole(script.parents[1] / path, text)
    array = macros.get("array")
    indices = parse_indices(array) if array else None
    return Description(path, indices, macros.get("throttle", ""))


def write_whole(path: Path, text: str) -> None:
    """Write a file beside its place and rename it there: DAGMan, or a killed client, is never left
    with half of one."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with open(part, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
