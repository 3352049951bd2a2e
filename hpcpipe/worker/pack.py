"""Runs a pack: the tasks of one element, one after another, or in several lanes side by side.

A lane runs one strand after the other: tasks of which each needs the one before, in their order, or
a single one. Where there are several lanes, each task writes to a log of its own,
``logs/<batch>.<key>.out``, which goes into the element's log in one piece when the task has ended,
after a line that names it. Imports next to nothing, for the same reason as `hpcpipe.worker.task`,
which reads the task file.
"""

from __future__ import annotations

import os
import sys

from hpcpipe.worker import outcome
from hpcpipe.worker import task as worker
from hpcpipe.worker.claim import Held, take
from hpcpipe.worker.fork import guard, load_call, settle, start, terminated, wait
from hpcpipe.worker.outcome import CLAIMED, MARK, dict_of
from hpcpipe.worker.task import Element, TaskFile, claim

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

NOTHING = b"N."  # None, pickled


class Pack:
    """The tasks of an element that are still to run, and those that run, by process."""

    def __init__(self, file: TaskFile, job: str, attempt: str, mine: str) -> None:
        self.strands = read_strands(file, job, attempt, mine)
        self.free = [*range(file.header["lanes"])][::-1]
        self.running: dict[int, tuple[Element, list[Element]]] = {}  # and what its strand has left

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
                settle(element, status, used)
                if element.log:
                    publish(element)
                self.go_on(left, element.lane, done)

    def go_on(self, strand: list[Element], lane: int, done: set[str]) -> None:
        """Start the next task of a strand that may run; if there is none, free its lane."""
        while strand and not terminated:
            element = strand.pop(0)
            if not element.log:
                announce(element)
            bar = (0, "") if element.key in done else claim(element)
            if bar is None:
                try:  # noqa: SIM105  contextlib is an import that every element would pay for
                    load_call(element.header, element.call)  # its own imports happen once for all
                except BaseException:
                    pass  # the child meets it again, and records it
                element.lane = lane
                self.running[start(element)] = element, strand
                return
            if element.log:
                announce(element)
            if bar[0]:
                sys.stderr.write(f"hpcpipe: {bar[1]}\n")
                element.begin()
                element.keep(False, element.record(ok=False, error=bar[1], barred=bar[0]), NOTHING)
        self.free.append(lane)


def read_strands(file: TaskFile, *identity: str) -> Iterator[list[Element]]:
    """Read the tasks of an element, strand by strand."""
    length = file.header["strand"]
    for first in range(0, len(file.payloads), length):
        numbers = range(first, first + length)
        yield [Element(file, number, *identity) for number in numbers]


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


def run_pack(file: TaskFile, job: str, attempt: str, mine: str) -> int:
    """Run the tasks of a pack, also after one has failed. Return an exit code.

    0 once all have run: how each went is in the pack. A scheduler that saw the pack fail would
    drop what waits for the tasks that succeeded. The pack has a claim of its own, since only one
    process at a time may judge what in it is done.
    """
    import resource  # noqa: F401  or each child would load it anew

    assert file.pack is not None
    whole = f"{file.pack}.claim"
    try:
        take(whole, mine)
    except Held as holder:
        sys.stderr.write(f"hpcpipe: {whole} is claimed by {holder}\n")
        return CLAIMED
    guard(file.header)
    outcome.own_pack = os.path.abspath(file.pack)
    Pack(file, job, attempt, mine).run({key for key, good in dict_of(file.pack).items() if good})
    with open(file.pack, "ab") as written:
        os.fsync(written.fileno())
    os.unlink(whole)
    return int(bool(terminated))


def main() -> None:
    """Run the element named on the command line, as `hpcpipe.worker.task.main` does."""
    worker.main(run_pack)
