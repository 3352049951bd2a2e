"""The values that a node is mapped over, and their labels."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

from hpcpipe.errors import WorkflowError
from hpcpipe.graph.axes import Axis
from hpcpipe.graph.command import Command
from hpcpipe.graph.labels import check_label, folders_for, labels_for, labels_for_rows
from hpcpipe.graph.node import Node, Output, check_name


@dataclass(frozen=True, eq=False)
class Each:
    """Values along one axis, as returned by `each`."""

    values: Sequence[Any]
    axis: Axis | None  # None until `Workflow.add` names it after the argument
    labels: tuple[str, ...]
    folders: tuple[str, ...] = ()  # see `Axis`

    def __repr__(self) -> str:
        """Name the axis and the first labels."""
        labels = ", ".join(self.labels[:3]) + ", …" * (len(self.labels) > 3)
        return f"<each of {len(self.labels)}: {labels}>"

    def along(self, axis: str) -> Each:
        """Return these values along an axis of this name."""
        made = Axis(axis, self.labels, self.folders)
        return Each(self.values, made, self.labels, self.folders)


class _EachMaker:
    """The type of ``each``."""

    @overload
    def __call__(  # type: ignore[overload-overlap]  # an output is no iterable, though it says why
        self, values: Node | Output, axis: str | None = None
    ) -> Output: ...
    @overload
    def __call__(
        self,
        values: Sequence[Any] | Mapping[Any, Any] | Iterable[Any],
        axis: str | None = None,
        labels: Sequence[object] | None = None,
    ) -> Each: ...
    def __call__(
        self,
        values: Any,
        axis: str | None = None,
        labels: Sequence[object] | None = None,
    ) -> Each | Output:
        """Map a node over values: one task for each of them.

        ``values`` is any sequence, or a mapping from label to value. ``axis`` names the axis they
        run along (default: the argument's name); arguments and nodes on the same axis advance
        together. ``labels`` name the tasks (default: the subject in a path, keys, or the values).
        Of a node or a part of one, ``values`` is the list that its task returns: how many tasks
        there are is known when that has ended, and they are named by number. Raises WorkflowError
        if there are no values, or a label is repeated or cannot be a file name.
        """
        if isinstance(values, Node | Output):
            return _along(values, axis, labels)
        if isinstance(values, str | bytes):
            raise WorkflowError(
                f"each({values!r}): a string is one value; write each([{values!r}])"
            )
        if isinstance(values, Mapping):
            labels = list(values) if labels is None else labels
            values = list(values.values())
        elif not isinstance(values, Sequence):
            values = list(values)
        if not len(values):
            where = f" for axis {axis!r}" if axis else ""
            raise WorkflowError(f"each([]): no values{where}; does the glob match any file?")
        if not {Node, Output}.isdisjoint(map(type, values)):
            raise WorkflowError("each(…) takes values; pass a node directly: its axes are kept")
        if labels is not None:
            made = Each(values, None, _given_labels(labels, len(values), axis))
        else:
            made = _labelled(values, labels_for(values))
        return made.along(check_name(axis, "axis")) if axis else made

    def zip(
        self, axis: str, labels: Sequence[object] | None = None, **arguments: Iterable[Any]
    ) -> dict[str, Any]:
        """Map several arguments along one axis: ``**each.zip("subject", t1=…, t2=…)``.

        All must have the same length, and mappings the same keys. Labels default to those keys, or
        come from the first argument and those named ``session``, ``run``, ….
        """
        mappings = {name: one for name, one in arguments.items() if isinstance(one, Mapping)}
        keys = list(next(iter(mappings.values()), ()))
        for name, one in mappings.items():
            if odd := sorted(map(str, set(keys) ^ set(one))):
                raise WorkflowError(f"each.zip({axis!r}): {odd[0]!r} is not in every mapping")
            arguments[name] = [one[key] for key in keys]
        if any(isinstance(one, Node | Output) for one in arguments.values()):
            raise WorkflowError(
                f"each.zip({axis!r}): takes values; map over a node that returns a list of tuples"
            )
        made = {name: self(values, axis) for name, values in arguments.items()}
        if len({len(one.values) for one in made.values()}) != 1:
            said = ", ".join(f"{name} has {len(one.values)}" for name, one in made.items())
            raise WorkflowError(
                f"each.zip({axis!r}): give one or more, with the same number of values: {said}"
            )
        if labels or keys:
            first = self(next(iter(made.values())).values, axis, labels or keys)
        else:
            rows = list(zip(*(one.values for one in made.values()), strict=True))
            first = _labelled(rows, labels_for_rows(rows, list(made))).along(axis)
        return {name: Each(one.values, first.axis, first.labels) for name, one in made.items()}

    def bids(
        self,
        dataset: str | os.PathLike[str],
        suffix: str | None = None,
        *,
        axis: str = "subject",
        per: str | None = None,
        extension: str | Sequence[str] = (".nii.gz", ".nii"),
        **entities: Any,
    ) -> Each:
        """Map over a BIDS data set: its images with a suffix (``"T1w"``), or its subjects' labels.

        A task is named by its subject, its session unless one is selected, and, if there are
        several images of these, the run and other entities that differ. ``per="subject"`` passes
        one task the list of all images of a subject; so do ``"session"`` and ``"run"``.
        ``entities`` select by one value or several:
        ``subject=``, ``session=``; others, such as ``task="rest"``, need
        ``pip install 'hpcpipe[bids]'``. Raises WorkflowError if nothing is found.
        """
        from hpcpipe.graph.bids import grouped, images, participants

        if suffix is None:
            if entities or per:
                raise WorkflowError("each.bids: give suffix= to choose images, such as 'T1w'")
            return self([label for (label,) in participants(dataset)], axis)
        found = images(dataset, suffix, extension, **entities)
        one_session = isinstance(entities.get("session"), str | int)
        rows, values = zip(*grouped(found, per, one_session), strict=True)
        return _labelled(values, labels_for(rows)).along(check_name(axis, "axis"))


each = _EachMaker()


def _labelled(values: Sequence[Any], labels: tuple[str, ...]) -> Each:
    folders = folders_for(values)
    return Each(values, None, labels, () if folders == labels else folders)


def _along(values: Node | Output, axis: str | None, labels: Sequence[object] | None) -> Output:
    """Map over the list that a task returns."""
    output = Output(values) if isinstance(values, Node) else values
    name = output.node.name
    if labels is not None:
        raise WorkflowError(f"each({name}): leave out labels=: how many there are is not known yet")
    if output.gathered:
        raise WorkflowError(f"each({name}.gather(…)): pass the node itself: its axes are kept")
    if isinstance(output.node.call, Command):
        raise WorkflowError(f"each({name}): a command returns no list; use a Python function")
    return replace(output, along=check_name(axis, "axis") if axis else "")


def _given_labels(labels: Sequence[object], count: int, axis: str | None) -> tuple[str, ...]:
    texts = tuple(str(label) for label in labels)
    where = f"axis {axis!r}" if axis else "each"
    if len(texts) != count:
        raise WorkflowError(f"{where}: {count} values but {len(texts)} labels")
    for text in texts:
        try:
            check_label(text)
        except ValueError as error:
            raise WorkflowError(f"{where}: {error}") from error
    if len(set(texts)) < count:
        doubled = next(text for text in texts if texts.count(text) > 1)
        raise WorkflowError(f"{where}: label {doubled!r} is repeated; labels name tasks")
    return texts
