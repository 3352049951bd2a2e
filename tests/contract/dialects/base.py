"""What the contract tests must be told of a scheduler, and cannot ask its adapter."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from hpcpipe.errors import SchedulerError
from hpcpipe.jobs import Capabilities
from hpcpipe.schedulers import REGISTRY, find_adapter
from hpcpipe.schedulers.base import Run, Scheduler, run_command

Census = dict[str, Counter[str]]
Times = Callable[[str], Mapping[str, tuple[str, str]]]


@contextmanager
def stopped(folder: Path) -> Iterator[None]:
    """Have a scheduler stopped and then started, by ``tests/clusters/attend.sh``."""

    def ask(word: str) -> None:
        done = subprocess.run(
            ["sh", "-c", 'echo "$1" >ask && cat answer', "sh", word],
            cwd=folder, text=True, capture_output=True, timeout=120, check=True,
        )  # fmt: skip
        assert done.stdout == f"{word}\n"

    ask("stop")
    try:
        yield
    finally:
        ask("start")


@contextmanager
def setting(**variables: str) -> Iterator[None]:
    """Have variables set in the environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield


def says(*argv: str) -> Callable[[], str]:
    """Make what asks a command for its version: the first line that it prints."""

    def ask() -> str:
        done = subprocess.run(argv, text=True, capture_output=True, timeout=60, check=False)
        return (done.stdout.strip() or done.stderr.strip()).partition("\n")[0]

    return ask


def answers(variable: str, *argv: str) -> Callable[[], str]:
    """Make what says why a scheduler cannot be tried, if so: nothing in the environment leads to
    it, the user is not one of its, or the command has no answer."""

    @cache
    def missing() -> str:
        if not os.environ.get(variable):
            return f"{variable} is not set"
        if os.geteuid() == 0:
            return "the tests run as root, who is no ordinary user of it"
        try:
            asked = run_command(argv, timeout=30)
        except SchedulerError as error:
            return str(error)
        return f"{' '.join(argv)}: {asked.words}" if asked.status else ""

    return missing


def always() -> str:
    """Say that nothing is missing."""
    return ""


def nothing(home: Path) -> dict[str, str]:
    """Need nothing, and do nothing."""
    del home
    return {}


@dataclass(frozen=True)
class Dialect:
    """One scheduler under test: how it is spelled, found, and lost. Snippets are of sh.

    To try one more scheduler: a module beside this one that makes its `Dialect`, which is then
    listed in ``__init__.py``; ``tests/clusters/NAME.sh up`` starts what it needs.
    """

    name: str  # as in the registry; also the marker of its tests, if it may be missing
    site: str  # the site of its tests, which has a queue "long"
    capabilities: Capabilities
    adapter: Callable[[Path, Run], Scheduler]  # of the local one's spool, and what runs commands
    out_of_reach: Callable[[Path], dict[str, str]]  # what in the environment makes it so; a folder
    mark: str  # how a directive begins
    job: tuple[str, ...]  # directives of a plain job that logs to logs/out
    array: tuple[
        str, ...
    ]  # and of an array, to logs/out.INDEX; with {first}, {last}, {indices}, {unique}
    index: str  # snippet: the index of an element
    element: str  # snippet: its id, or the job's where that is no array
    refused: tuple[str, str]  # a directive that it refuses, and how it begins to say so: {script}
    short_time: str  # about the shortest limit of time that it keeps; empty: none
    on: Callable[[], str]  # what it is tried on, as that says of itself
    census: Callable[[Mapping[str, Path]], Census]  # by workflow (of a spool), of each live, good…
    real: bool = True  # or a stand-in
    begin: str = ""  # snippet: what a script begins with; {log} is its log
    variables: Callable[[Path], dict[str, str]] = nothing  # what its users need; a folder
    end: Callable[[Path], object] = nothing  # end all that runs from that folder
    after_ended: bool = True  # whether a job may be submitted to come after one that has ended
    # Whether what waits for a job that is cancelled begins, also if that itself was to wait.
    lets_go: bool = True
    many: int = 1000  # elements of a large array
    slow: float = 1  # how much longer than elsewhere a run may take
    missing: Callable[[], str] = always  # why it cannot be tried, or nothing
    commands: tuple[str, ...] = ()  # all that its adapter may run, that which submits first
    ahead: int = 0  # how many times what submits is run before the first batch
    apart: int = 1  # and how many times for a batch
    late: bool = True  # whether what submits does so even if who started it is gone
    aligned: tuple[str, ...] = ()  # what a submission of two aligned arrays runs, sorted
    words: tuple[str, str] = ("", "")  # how its queue says "held", and a word that it never says
    # What users have set that would hide jobs, one after another.
    hides: Callable[[], Iterator[AbstractContextManager[object]]] | None = None
    times: Times | None = None  # start and end of elements
    stopped: Callable[[], AbstractContextManager[None]] | None = None  # as long as it lasts
    lasting: bool = True  # whether its jobs outlive that
    node: str = "echo here"  # snippet: prints the name of the node
    mailbox: Callable[[], Path] | None = None  # where its mailer notes what it was called with
    set_node: Callable[[str, str], None] | None = None  # to DOWN, or RESUME; of the queue "gpu"

    @property
    def param(self) -> Any:
        """Give it as a parameter of tests, which can be chosen by its name."""
        marks = [getattr(pytest.mark, self.name)] if self.missing is not always else []
        return pytest.param(self, id=self.name, marks=marks)

    @property
    def probed(self) -> bool:
        """Return whether `hpcpipe site` can look at it live."""
        return self.name in REGISTRY and find_adapter(self.name).probe is not None

    @property
    def refuses(self) -> bool:
        """Return whether it refuses anything."""
        return any(self.refused)

    def can(self, name: str) -> bool:
        """Return whether it has a capability, or something that not every dialect has."""
        of = self.capabilities if hasattr(self.capabilities, name) else self
        return bool(getattr(of, name))

    def need(self) -> None:
        """Skip the test if the scheduler is not there; where nothing may be skipped, fail."""
        if missing := self.missing():
            said = f"all tests that need a real {self.name}: {missing}"
            if os.environ.get("HPCPIPE_TEST_STRICT") == "1":
                pytest.fail(f"{said}; HPCPIPE_TEST_STRICT=1 lets nothing be skipped", pytrace=False)
            pytest.skip(said)
