"""Runs a pack: the tasks of one element, one after another, or in several lanes side by side.

A lane runs one strand after the other: tasks of which each needs the one before, in their order, or
a single one. Where there are several lanes, each task writes to a log of its own,
``logs/<batch>.<key>.out``, which goes into the element's log in one piece when the task has ended,
after a line that names it. Imports next to nothing, for the same reason as `hpcpipe.worker`, which
reads the task file.
"""

from __future__ import annotations

import os
import sys

from hpcpipe import outcome, worker
from hpcpipe.child import heed, load_call, settle, start, terminated, wait
from hpcpipe.outcome import UPSTREAM_FAILED
from hpcpipe.worker import Element, TaskFile, barred, dict_of, hold

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MARK = "hpcpipe: task "  # begins the line before a packed task's own in the log: node and key


class Pack:
    """The tasks of an element that are still to run, and those that run, by process."""

    def __init__(self, file: TaskFile, job: str, attempt: str) -> None:
        self.strands = read_strands(file, job, attempt)
        self.free = [*range(file.header["lanes"])][::-1]
        self.running: dict[int, tuple[Element, list[Element]]] = {}  # and what its strand has left
        self.codes: set[int] = set()

    def run(self, done: set[str]) -> None:
        """Keep every lane busy until all has run, or nothing more is to be begun."""
        while True:
            while self.free and not terminated and (strand := next(self.strands, None)):
                self.go_on(strand, self.free.pop(), done)
            if not self.running:
                return
            child, status, used = wait()
            if child in self.running:  # else it is one that an import has started
                element, left = self.running.pop(child)
                self.codes.add(settle(element, status, used))
                if element.log:
                    publish(element)
                self.go_on(left, element.lane, done)

    def go_on(self, strand: list[Element], lane: int, done: set[str]) -> None:
        """Start the next task of a strand that is not barred; if there is none, free its lane."""
        while strand and not terminated:
            element = strand.pop(0)
            if not element.log:
                announce(element)
            why = (0, "") if element.key in done else barred(element)
            if why is None:
                try:  # noqa: SIM105  contextlib is an import that every element would pay for
                    load_call(element.header, element.call)  # its own imports happen once for all
                except BaseException:
                    pass  # the child meets it again, and records it
                element.lane = lane
                self.running[start(element)] = element, strand
                return
            if element.log:
                announce(element)
            sys.stderr.write(why[1])
            self.codes.add(why[0])
        self.free.append(lane)


def read_strands(file: TaskFile, job: str, attempt: str) -> Iterator[list[Element]]:
    """Read the tasks of an element, strand by strand."""
    length = file.header["strand"]
    for first in range(0, len(file.payloads), length):
        numbers = range(first, first + length)
        yield [Element(file, number, job, attempt) for number in numbers]


def announce(element: Element) -> None:
    """Name in the element's log the task that what follows is of."""
    sys.stdout.write(f"{MARK}{element.node} {element.key}\n")


def publish(element: Element) -> None:
    """Put what a task wrote into the element's log."""
    announce(element)
    try:
        with open(element.log, "rb") as own:
            while block := own.read(1 << 20):
                sys.stdout.buffer.write(block)
    except FileNotFoundError:
        return  # it was killed before it could open it
    sys.stdout.flush()
    os.unlink(element.log)


def run_pack(file: TaskFile, job: str, attempt: str) -> int:
    """Run the tasks of a pack; none stops for another that fails. Return an exit code."""
    import resource  # noqa: F401  or each child would load it anew

    first = Element(file, 0, job, attempt)
    hold(first)
    heed()
    assert file.pack is not None
    outcome.own_pack = os.path.abspath(file.pack)
    pack = Pack(file, job, attempt)
    pack.run({key for key, good in dict_of(file.pack).items() if good})
    with open(file.pack, "ab") as written:
        os.fsync(written.fileno())
    os.unlink(first.claim)
    return next((code for code in (1, UPSTREAM_FAILED) if code in pack.codes), 0)


def main() -> None:
    """Run the element named on the command line, as `hpcpipe.worker.main` does."""
    worker.main(run_pack)
