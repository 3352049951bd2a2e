"""What PBS and Torque have in common: ids, options, resources, refusals."""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import Callable, Iterator, Sequence

from standins.engine import Element, Engine, Job, State, Unreachable, refuse

SERVER = "pbshost"
Options = list[tuple[str, str]]


class Refused(Exception):
    """A command is refused: the words without the command's name, and the exit status."""

    def __init__(self, words: str, status: int) -> None:
        super().__init__(words)
        self.words, self.status = words, status


def commands(unreachable: str, status: int) -> Callable[..., Callable[[list[str]], int]]:
    """Give what makes a function a command, which prints refusals in its own name.

    ``unreachable`` is what it says, as {name}, where there is no server.
    """

    def command(function: Callable[[list[str]], int]) -> Callable[[list[str]], int]:
        name = function.__name__

        def run(argv: list[str]) -> int:
            try:
                return function(argv)
            except Refused as refused:
                return refuse(refused.words.replace("{name}", name), refused.status)
            except Unreachable:
                return refuse(unreachable.replace("{name}", name), status)

        return run

    return command


def job_id(job: Job, element: Element | None = None) -> str:
    """Spell an id: ``7.pbshost``, ``8[].pbshost``, ``8[3].pbshost``."""
    index = "" if element is None or element.index is None else element.index
    return f"{job.number}{'' if job.indices is None else f'[{index}]'}.{SERVER}"


def find(state: State, word: str, unknown: Refused) -> tuple[Job, list[Element]]:
    """Find what an id means: a job and those of its elements that are named, or all of them."""
    match = re.fullmatch(r"(\d+)(\[(?:(\d+)(?:-(\d+))?)?\])?(?:\.[\w.-]+)?", word)
    if match is None:
        raise Refused(f"{{name}}: illegally formed job identifier: {word}", 1)
    job = state.jobs.get(int(match[1]))
    if job is None or (job.indices is None) != (match[2] is None):
        raise unknown
    if match[3] is None:
        return job, [*job.elements.values()]
    wanted = range(int(match[3]), int(match[4] or match[3]) + 1)
    if not set(wanted) <= job.elements.keys():
        raise unknown
    return job, [job.elements[index] for index in wanted]


def each(
    name: str,
    words: Sequence[str],
    engine: Engine,
    act: Callable[[State, str], None],
) -> int:
    """Do the same to each id, and go on where one is refused; the last refusal's status counts."""
    status = 0
    with engine.open() as state:
        for word in words:
            try:
                act(state, word)
            except Refused as refused:
                status = refuse(refused.words.replace("{name}", name), refused.status)
    return status


def directives(
    script: str, read: Callable[[list[str]], tuple[Options, list[str]]]
) -> Iterator[tuple[str, str]]:
    """Read the options of the lines before the first command."""
    for line in script.splitlines():
        if line.startswith("#PBS"):
            given, words = read(shlex.split(line.removeprefix("#PBS")))
            if words:
                raise Refused(f"{{name}}: directive error: {line}", 1)
            yield from given
        elif line and not line.startswith(("#", ":")):
            return


def variables(options: Sequence[tuple[str, str]]) -> dict[str, str]:
    found = {}
    for key, value in options:
        for part in re.findall(r"((?:[^,\\]|\\.)+)", value if key == "-v" else ""):
            name, said, text = re.sub(r"\\(.)", r"\1", part).partition("=")
            found[name] = text if said else os.environ.get(name, "")
    return found


def amount(name: str, text: str, bad: Refused) -> int:
    """Read an amount: seconds, MiB, or a number."""
    if name in ("walltime", "cput"):
        if not re.fullmatch(r"(\d+:){0,2}\d+", text):
            raise bad
        seconds = 0
        for part in text.split(":"):
            seconds = seconds * 60 + int(part)
        return seconds
    if name in ("mem", "vmem"):
        match = re.fullmatch(r"(\d+)(kb|mb|gb|tb)", text, re.I)
        if match is None:
            raise bad
        return int(int(match[1]) * {"k": 1 / 1024, "m": 1, "g": 1024, "t": 1 << 20}[match[2][0]])
    if name == "place":
        return 0
    if not text.isdigit():
        raise bad
    return int(text)


def clock(seconds: float) -> str:
    """Write seconds as hours, minutes and seconds."""
    whole = int(seconds)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def minute(when: float) -> str:
    """Write a time as comments have it."""
    return time.strftime("%a %b %d at %H:%M", time.localtime(when))
