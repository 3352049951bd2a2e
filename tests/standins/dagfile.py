"""Reads a DAG input file: the commands that are documented and used, and no others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

AGAIN = """
Some file(s) needed by condor_dagman already exist. Either:
- Rename them
- Use the "-f" option to force them to be overwritten
\tor
- Use the "-update_submit" option to update the submit file and continue."""


class Refused(Exception):
    """A command is refused, in these words."""


@dataclass
class Node:
    """A node of a DAG, and what became of it."""

    description: str
    noop: bool = False
    parents: set[str] = field(default_factory=set)
    pre: Sequence[str] = ()
    post: Sequence[str] = ()
    defer: int | None = None  # with which the PRE script is to be run again, after `seconds`
    seconds: float = 0
    skip: int | None = None
    category: str = ""
    limit: int = 0
    state: str = "waiting"  # then "submitted"; "done", "failed" or "futile"
    cluster: int = 0
    deferred: float = 0
    began: bool = False
    held: bool = False


def parse(file: Path, facts: dict[str, Any]) -> dict[str, Node]:
    """Read a DAG; ``facts`` gets the name of its jobstate log."""
    lines = [line.split() for line in file.read_text().splitlines()]
    nodes: dict[str, Node] = {}
    for words in lines:
        match words:
            case ["JOB", name, description, *rest] if rest in ([], ["NOOP"]):
                if name in nodes or set(name) & set(".+"):
                    raise Refused(f"ERROR: {name}: no name of a node, or there twice")
                nodes[name] = Node(description, noop=bool(rest))

    def named(name: str) -> Iterator[Node]:
        if name != "ALL_NODES" and name not in nodes:
            raise Refused(f"ERROR: unknown node {name}")
        yield from nodes.values() if name == "ALL_NODES" else [nodes[name]]

    for words in lines:
        match words:
            case [] | ["JOB", *_]:
                pass
            case [first, *_] if first.startswith("#"):
                pass
            case ["CONFIG", name]:
                if "DAGMAN_MAX_SUBMIT_ATTEMPTS = " not in (file.parents[1] / name).read_text():
                    raise Refused(f"ERROR: {name}: no settings")
            case ["JOBSTATE_LOG", name]:
                facts["jobstate"] = name
            case ["PARENT", *names] if "CHILD" in names:
                at = names.index("CHILD")
                for child in names[at + 1 :]:
                    for node in named(child):
                        node.parents |= {one for one in names[:at] for _ in named(one)}
            case ["PRE_SKIP", name, code]:
                for node in named(name):
                    node.skip = int(code)
            case ["SCRIPT", "DEFER", status, seconds, "PRE", name, *script]:
                for node in named(name):
                    node.defer, node.seconds, node.pre = int(status), float(seconds), script
            case ["SCRIPT", "POST", name, *script]:
                for node in named(name):
                    node.post = script
            case ["CATEGORY", name, category]:
                for node in named(name):
                    node.category = category
            case ["MAXJOBS", category, limit]:
                for node in nodes.values():
                    node.limit = int(limit) if node.category == category else node.limit
            case _:
                raise Refused(f"ERROR: Invalid command: {' '.join(words)}")
    return nodes
