"""What a node is mapped over: values along an axis, and how they are named."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpcpipe.axes import Axis
from hpcpipe.errors import WorkflowError
from hpcpipe.labels import check_label, labels_for
from hpcpipe.node import Node, Output, check_name


@dataclass(frozen=True, eq=False)
class Each:
    """Values along one axis, as `each` makes them."""

    values: Sequence[Any]
    axis: Axis | None  # None until `Workflow.add` names it after the argument
    labels: tuple[str, ...]


class _EachMaker:
    """The ``each`` that users call; ``each.zip`` for values that go together."""

    def __call__(
        self,
        values: Sequence[Any] | Mapping[Any, Any] | Iterable[Any],
        axis: str | None = None,
        labels: Sequence[object] | None = None,
    ) -> Each:
        """Map a node over values: one task for each of them.

        ``values`` is any sequence, or a mapping from label to value. ``axis`` names what they run
        along (default: the argument's name); arguments and nodes that name the same axis go along
        it together. ``labels`` name the tasks (default: file stems, keys, or the values).
        Raises WorkflowError where there is nothing, or a label is doubled or cannot be a file name.
        """
        if isinstance(values, str | bytes):
            raise WorkflowError(
                f"each({values!r}): a string is one value; write each([{values!r}])"
            )
        if isinstance(values, Mapping):
            labels = list(values) if labels is None else labels
            values = list(values.values())
        elif isinstance(values, Node | Output):
            values = [values]
        elif not isinstance(values, Sequence):
            values = list(values)
        if not len(values):
            where = f" for axis {axis!r}" if axis else ""
            raise WorkflowError(f"each([]): no values{where}; does the glob match any file?")
        if not {Node, Output}.isdisjoint(map(type, values)):
            raise WorkflowError("each(…) takes values; give a node as it is, its axes come along")
        given = _given_labels(labels, len(values), axis) if labels is not None else None
        named = labels_for(values) if given is None else given
        return Each(values, Axis(check_name(axis, "axis"), named) if axis else None, named)

    def zip(
        self, axis: str, labels: Sequence[object] | None = None, **arguments: Iterable[Any]
    ) -> dict[str, Any]:
        """Map over several arguments that go together: ``**each.zip("subject", t1=…, t2=…)``.

        All must have the same length, and mappings the same keys. Labels are those keys, or come
        from the first argument, unless given.
        """
        mappings = {name: one for name, one in arguments.items() if isinstance(one, Mapping)}
        keys = list(next(iter(mappings.values()), ()))
        for name, one in mappings.items():
            if odd := sorted(map(str, set(keys) ^ set(one))):
                raise WorkflowError(f"each.zip({axis!r}): {odd[0]!r} is not in every mapping")
            arguments[name] = [one[key] for key in keys]
        made = {name: self(values, axis) for name, values in arguments.items()}
        if len({len(one.values) for one in made.values()}) != 1:
            said = ", ".join(f"{name} has {len(one.values)}" for name, one in made.items())
            raise WorkflowError(
                f"each.zip({axis!r}): give values that go together, as many for each: {said}"
            )
        first = self(next(iter(made.values())).values, axis, labels or keys or None)
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
        """Map over a BIDS data set: its images of a suffix (``"T1w"``), or its subjects' labels.

        A task is named by its subject, and where a subject has several images also by its session,
        run and whatever else differs. ``per="subject"`` gives one task the list of all images of a
        subject; so does ``"session"``, ``"run"``. ``entities`` choose: ``subject=``, ``session=``;
        others, such as ``task="rest"``, need ``pip install 'hpcpipe[bids]'``. Values are one or
        several. Raises WorkflowError where nothing is found, saying what there is.
        """
        from hpcpipe.bids import grouped, images, participants

        if suffix is None:
            if entities or per:
                raise WorkflowError("each.bids: say suffix=, such as 'T1w', to choose among images")
            return self([label for (label,) in participants(dataset)], axis)
        found = images(dataset, suffix, extension, **entities)
        rows, values = zip(*grouped(found, per), strict=True)
        return self(values, axis, labels_for(rows))


each = _EachMaker()


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
        raise WorkflowError(f"{where}: label {doubled!r} is given twice; labels name tasks")
    return texts
