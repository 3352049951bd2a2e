"""Which part of a key has changed since the last run, and what is in one."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from itertools import chain, islice
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from hpcpipe.errors import ResultError, UsageError
from hpcpipe.graph.axes import places
from hpcpipe.store.plan import UNCOUNTED, NodeRecord
from hpcpipe.store.record import latest_record
from hpcpipe.store.rundir import RunDir

if TYPE_CHECKING:
    from hpcpipe.keys.plan import Plan

_MOST = 4  # lines of reasons


def change_lines(plan: Plan, rundir: RunDir) -> Iterator[str]:
    """Yield why tasks run that were part of the last run, one line for each distinct reason."""
    try:
        before = latest_record(rundir).nodes
    except (ResultError, UsageError):
        return
    reasons: dict[str, list[str]] = defaultdict(list)
    changed: dict[str, set[int]] = {}
    for name, node in plan.nodes.items():
        changed[name] = set()
        if name not in before or not node.to_run:
            continue
        old = dict(before[name].by_label())
        for index in node.to_run:
            key = old.get(node.node.label(index))
            if key is not None and key.hex() != node.key(index):
                changed[name].add(index)
                place = before[name].index(key.hex())
                why = _why(node.node, index, before[name], place, changed)
                reasons[why].append(node.node.task(index))
    if reasons:
        yield "Changed since the last run:"
        yield from (_line(why, tasks) for why, tasks in islice(reasons.items(), _MOST))
        if len(reasons) > _MOST:
            count = sum(map(len, islice(reasons.values(), _MOST, None)))
            yield f"  other reasons: {count} task{'s' * (count != 1)}"


def _line(why: str, tasks: list[str]) -> str:
    others = f" and {len(tasks) - 1} other{'s' * (len(tasks) > 2)}" if len(tasks) > 1 else ""
    return f"  {why} ({tasks[0]}{others})"


def _why(
    new: NodeRecord, index: int, old: NodeRecord, place: int, changed: Mapping[str, set[int]]
) -> str:
    """Name what differs in the keys of two tasks of one name."""
    now, then = (Counter(part for part in one.parts if part[1] != UNCOUNTED) for one in (new, old))
    said = dict.fromkeys(what for what, _ in [*(now - then), *(then - now)])
    code = [what.removeprefix("code ") for what in said if what.startswith("code ")]
    words = [f"code of {new.name}: {', '.join(code)}"] if code else []
    words += [what for what in said if not what.startswith("code ")]
    files, earlier = _files(new, index)[1], _files(old, place)[1]
    other = [PurePath(path).name for path in files if files[path] != earlier.get(path)]
    words += [f"input {name}" for name in dict.fromkeys(other)]
    if not words:
        above = [edge.upstream for edge in new.edges if _meets(edge.parents(index), edge, changed)]
        words += [f"{new.name} takes from {name}" for name in dict.fromkeys(above)]
    return "; ".join(words) or f"code or input of {new.name}"


def _meets(parents: Any, edge: Any, changed: Mapping[str, set[int]]) -> bool:
    return not changed.get(edge.upstream, set()).isdisjoint(parents)


def _files(node: NodeRecord, index: int) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Return the digests of a node's input files by path: those of all tasks, those of one."""
    if node.recipe is None:
        return {}, {}
    shared, columns = node.recipe
    here = [column[at] for column, (_, at) in zip(columns, places(node.axes, index), strict=True)]
    return dict(_in_recipe([shared])), dict(_in_recipe(here))


def _in_recipe(recipe: Any) -> Iterator[tuple[str, bytes]]:
    if isinstance(recipe, tuple) and recipe and recipe[0] == "file":
        yield recipe[1]
    elif isinstance(recipe, tuple | list):
        for part in recipe[1] if isinstance(recipe, tuple) else recipe:
            yield from _in_recipe(part)


def key_lines(rundir: RunDir, name: str) -> Iterator[str]:
    """Yield what is in the key of a task: code, inputs, files, demands, what is upstream."""
    nodes = latest_record(rundir).nodes
    node, index = latest_record(rundir).one(name)
    yield f"{node.task(index)}  key {node.key(index)}"
    for what, digest in sorted(node.parts):
        if digest != UNCOUNTED:
            yield f"  {what}  {digest.hex()}"
    for path, digest in chain.from_iterable(files.items() for files in _files(node, index)):
        yield f"  file {path}  {digest.hex()[:16]}"
    if node.folder:
        yield "  the name of its working folder"
    for edge in node.edges:
        above = nodes[edge.upstream]
        parents = edge.parents(index)
        for parent in parents[:_MOST]:
            yield f"  after {above.task(parent)}  {above.key(parent)[:16]}"
        if len(parents) > _MOST:
            yield f"  after {len(parents) - _MOST} other tasks of {above.name}"
    for what, digest in sorted(node.parts):
        if digest == UNCOUNTED:
            yield f"  not in it: {what}, which the command may use"
