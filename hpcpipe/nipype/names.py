"""Find which nodes of different sub-workflows do the same, so that they become one array.

A program such as fMRIPrep makes a sub-workflow for each subject, ``sub_01_wf`` and ``sub_02_wf``,
with nodes of the same names. They become tasks of one node, ``sub_wf``, labelled ``01`` and ``02``.
It matters only for the number of arrays: a task has its own nodes, whatever it is grouped with.

A name with the word "subject" is split there, whatever there is beside it, so that a task keeps its
name when the second subject is added. Other sub-workflows are compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import networkx

_ALIKE = 0.5  # of the nodes of two sub-workflows, as many are the same: subjects may lack a run
_SUBJECT = re.compile(
    r"(?P<start>(?:.*[_-])?(?:sub|subj|subject|participant))[_-](?P<label>.+?)(?P<end>[_-]wf)?",
    re.I,
)
_Path = tuple[str, ...]
# What a node does, and how far down: what comes one after the other is no array.
_Kind = tuple[str, int]
# What a node is called, and what distinguishes it from others of this name.
Named = tuple[str, tuple[str, ...]]


def common_names(graph: networkx.DiGraph, order: Iterable[Any]) -> dict[str, Named]:
    """Return, by full name, the name that each node shares with those that do the same.

    ``order`` has the graph's upstream nodes first.
    """
    depths: dict[Any, int] = {}
    kinds: dict[str, _Kind] = {}
    for node in order:
        depths[node] = max((depths[one] + 1 for one in graph.pred[node]), default=0)
        kinds[node.fullname] = (type(node.interface).__qualname__, depths[node])
    found: dict[str, Named] = {}
    _fold([(name, tuple(name.split("."))) for name in kinds], (), {}, kinds, found)
    return found


def _fold(
    items: Sequence[tuple[str, _Path]],
    above: _Path,
    labels: Mapping[str, tuple[str, ...]],
    kinds: Mapping[str, _Kind],
    found: dict[str, Named],
) -> None:
    """Name the nodes below one sub-workflow, or several alike; ``items`` have the rest of paths."""
    below: dict[str, list[tuple[str, _Path]]] = {}
    for name, (first, *rest) in items:
        if rest:
            below.setdefault(first, []).append((name, tuple(rest)))
        else:
            found[name] = (".".join((*above, first)), labels.get(name, ()))
    for called, members in _groups(below, kinds):
        inside: list[tuple[str, _Path]] = []
        deeper = dict(labels)
        for component, label in members:
            inside += below[component]
            for name, _ in below[component]:
                deeper[name] = (*labels.get(name, ()), *([label] if label else []))
        _fold(inside, (*above, called), deeper, kinds, found)


def _groups(
    below: Mapping[str, Sequence[tuple[str, _Path]]], kinds: Mapping[str, _Kind]
) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Yield sub-workflows that are alike: a common name, and each with its label."""
    subjects: dict[str, list[tuple[str, str]]] = {}
    groups: list[tuple[set[tuple[_Path, _Kind]], list[str]]] = []
    for component, items in below.items():
        if named := _SUBJECT.fullmatch(component):
            called = named["start"] + (named["end"] or "")
            subjects.setdefault(called, []).append((component, named["label"]))
            continue
        inside = {(rest, kinds[name]) for name, rest in items}
        for other, members in groups:
            alike = len(inside & other) >= _ALIKE * len(inside | other)
            if alike and _common_name([*members, component]):
                members.append(component)
                break
        else:
            groups.append((inside, [component]))
    yield from subjects.items()
    for _, members in groups:
        if len(members) == 1:
            yield members[0], [(members[0], "")]
        else:
            called = _common_name(members)
            yield called, [(one, one) for one in members]


def _common_name(names: Sequence[str]) -> str:
    """Return what names have in common: all but digits, or words at their beginning and end."""
    without = {re.sub(r"\d+", "", name) for name in names}
    if len(without) == 1 and (same := without.pop().strip("_-")):
        return re.sub(r"([_-])[_-]+", r"\1", same)
    words = [re.split(r"[_-]", name) for name in names]
    start = _first_common(words)
    end = _first_common([one[len(start) :][::-1] for one in words])
    return "_".join((*start, *end[::-1]))


def _first_common(lists: Sequence[list[str]]) -> list[str]:
    same = takewhile(lambda words: len(set(words)) == 1, zip(*lists, strict=False))
    return [words[0] for words in same]
