"""What a local job asks for: read from its script's head, and checked before it is accepted."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hpcpipe.errors import SchedulerError
from hpcpipe.indices import parse_indices
from hpcpipe.jobs import After

_DIRECTIVE = re.compile(r"#HPCPIPE\s+--(\w+)=(.+)")


@dataclass(frozen=True)
class Spec:
    """What a job asked for. ``array`` keeps its directive's spelling; ``""`` is a plain job."""

    name: str = "job"
    array: str = ""
    cpus: int = 1
    memory: int | None = None
    time: int | None = None
    output: str = ""
    after: tuple[After, ...] = ()
    token: str = ""
    held: bool = False
    folder: str = "/"
    umask: int = 0o077
    grace: float = 5.0
    most_cpus: int | None = None
    most_memory: int | None = None

    @property
    def indices(self) -> Sequence[int]:
        """The indices of the elements, ascending; of a plain job, one 0."""
        return parse_indices(self.array) if self.array else range(1)

    def output_of(self, job: str, index: int) -> str:
        """Return one element's output file, from the run folder: ``%j``, ``%a``, ``%%`` filled."""
        words = {"%j": job, "%a": str(index), "%%": "%"}
        return re.sub("%[ja%]", lambda match: words[match[0]], self.output)


def position(indices: Sequence[int], index: int) -> int | None:
    """Find where an index stands among ascending ones."""
    at = bisect_left(indices, index)
    return at if at < len(indices) and indices[at] == index else None


def read_directives(script: Path, text: str, spec: Spec) -> Spec:
    """Read the directives at the head of a script into ``spec``.

    Raises SchedulerError naming the line that is not a directive.
    """
    for number, line in enumerate(text.split("\n"), 1):
        if line.startswith("#HPCPIPE"):
            match = _DIRECTIVE.fullmatch(line.rstrip())
            word, value = match.groups() if match else ("", "")
            try:
                if word not in _READERS:
                    known = " ".join(f"--{known}=" for known in _READERS)
                    raise ValueError(f"not a directive; there are {known}")
                said: Any = {word: _READERS[word](value)}
                spec = replace(spec, **said)
            except ValueError as error:
                raise SchedulerError(f"{script}, line {number}: {line}: {error}") from None
        elif line.strip() and not line.startswith("#"):
            break
    ours = "local-%j_%a.out" if spec.array else "local-%j.out"
    return replace(spec, output=spec.output or ours)


def _whole(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError("give a whole number, at least 1")
    return int(text)


def _indices(text: str) -> str:
    parse_indices(text)
    return text


_READERS: Mapping[str, Callable[[str], str | int]] = {
    "name": str,
    "array": _indices,
    "cpus": _whole,
    "memory": _whole,
    "time": _whole,
    "output": str,
}


def check(spec: Spec, script: Path, find: Callable[[str], Spec | None]) -> None:
    """Refuse what could never run; ``find`` looks up the jobs it is to start after."""
    indices = spec.indices
    for after in spec.after:
        parent = find(after.job)
        if parent is None:
            raise SchedulerError(
                f"no job {after.job} to start after: never submitted here, or ended long ago"
            )
        if after.element is not None:
            wanted: Sequence[int] = (after.element,)
        else:
            wanted = indices if after.kind == "each" and spec.array != parent.array else ()
        theirs = parent.indices
        lacking = next((one for one in wanted if position(theirs, one) is None), None)
        if lacking is not None:
            raise SchedulerError(f"job {after.job} has no element {lacking} to start after")
    output = Path(spec.folder, spec.output_of("0", indices[0]))
    if not output.parent.is_dir():
        raise SchedulerError(f"{script}: --output={spec.output}: there is no {output.parent}")
