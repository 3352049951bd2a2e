"""The scheduler protocol, and its half-way house for schedulers driven by commands.

`Scheduler` is all that the rest of hpcpipe knows of a scheduler. `CommandScheduler` writes its
verbs once, from pure pairs: a method that gives a command, and one that reads its output. A
subclass never starts a process. The law that binds every adapter:

1. ``poll`` and ``account`` take many ids in one command; none for none.
2. A missing id is absent from the mapping, never an exception.
3. Unreachable raises SchedulerUnavailable; refused raises SchedulerError, its own words first.
4. A word never seen is State.UNKNOWN with the word kept; it never raises.
5. Array rows are spread into elements here; nobody else knows the spelling.
6. No id in the output of a submission raises.
7. Commands are tuples of words, no shell. Extra options of the site pass through whole.
8. No logging, no sleeping, no job objects, no import from above.
9. The module docstring is the manual: commands, versions seen, site keys, oddities.
"""

from __future__ import annotations

import abc
import os
import re
import subprocess
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple, Protocol

from hpcpipe.errors import SchedulerError, SchedulerUnavailable
from hpcpipe.model import After, Capabilities, JobEnd, JobStatus


class Done(NamedTuple):
    """What a command left behind."""

    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str = ""

    @property
    def words(self) -> str:
        """The scheduler's own words, for a person."""
        return (self.stderr.strip() or self.stdout.strip()) or f"{self.argv[0]} said nothing"


Run = Callable[[Sequence[str], Path | None], Done]


def run_command(argv: Sequence[str], cwd: Path | None = None, timeout: float = 120) -> Done:
    """Run a scheduler's command to its end, in English and UTF-8.

    Raises SchedulerUnavailable where the program is missing or does not answer in ``timeout`` s.
    """
    env = os.environ | {"LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            argv, cwd=cwd, env=env, capture_output=True, timeout=timeout, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except FileNotFoundError:
        raise SchedulerUnavailable(
            f"{argv[0]}: command not found; is this a login node of the cluster?"
        ) from None
    except subprocess.TimeoutExpired as late:
        said = (late.stderr or b"").decode(errors="replace").strip()
        silent = f"{argv[0]} did not answer in {timeout:.0f} s"
        raise SchedulerUnavailable(f"{said}\n({silent})" if said else silent) from None
    decode = (done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
    return Done(tuple(argv), done.returncode, *decode)


def directives(script: Path, mark: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Read what runs a script, and the words of its directives.

    This is for schedulers that would run it as any command, and read neither.
    """
    import shlex  # not for each `hpcpipe status`

    first, *lines = script.read_text("utf-8", "surrogateescape").splitlines()
    marked = [line.removeprefix(mark) for line in lines if line.startswith(f"{mark} ")]
    return tuple(first.removeprefix("#!").split()), tuple(shlex.split("\n".join(marked)))


class Scheduler(Protocol):
    """The verbs of a scheduler, in its own spelling of ids."""

    name: ClassVar[str]
    capabilities: ClassVar[Capabilities]

    def submit(
        self, script: Path, after: Sequence[After] = (), *, token: str, held: bool = False
    ) -> str:
        """Hand over a script from its run folder (the folder above ``batches``); return the id."""
        ...

    def release(self, jobs: Sequence[str]) -> None:
        """Let held jobs go."""
        ...

    def poll(self, jobs: Collection[str]) -> Mapping[str, JobStatus]:
        """Say of every live element of these jobs what the queue says, keyed by `element` ids."""
        ...

    def account(self, jobs: Collection[str], since: float) -> Mapping[str, JobEnd]:
        """Say of every ended element of these jobs how it ended; ``since`` is the earliest
        submission, in seconds since 1970."""
        ...

    def cancel(self, jobs: Sequence[str]) -> None:
        """Cancel jobs or elements; those already gone are no error."""
        ...

    def find(self, tokens: Collection[str]) -> Mapping[str, str]:
        """Find live jobs by the token they were submitted with: token → job id."""
        ...

    def element(self, job: str, index: int | None) -> str:
        """Spell the id of one element of an array (``index``), or of a plain job (None)."""
        ...

    def accounts(self) -> Sequence[str]:
        """List the accounts this user may charge, the default one first; empty if unknown."""
        ...


class CommandScheduler(abc.ABC):
    """A scheduler as pure pairs: a command, and the reading of its output.

    ``run`` starts the commands; tests hand in another. ``cancels`` is how many jobs the site lets
    one cancel command have.
    """

    name: ClassVar[str]
    capabilities: ClassVar[Capabilities]
    unreachable_words: ClassVar[str]  # a pattern of what a failed command says that could not ask
    passing_words: ClassVar[str] = r"(?!)"  # or was refused, since some limit of jobs is reached

    def __init__(self, run: Run = run_command, cancels: int | None = None) -> None:
        self._run = run
        self._cancels = cancels

    def submit(
        self, script: Path, after: Sequence[After] = (), *, token: str, held: bool = False
    ) -> str:
        # The run folder as working folder: the script's own paths are relative to it, so that no
        # odd character of it ever has to be spelled in a directive.
        done = self._run(
            self.submit_command(script, after, token=token, held=held), script.parent.parent
        )
        return self.read_submit(done)

    def release(self, jobs: Sequence[str]) -> None:
        if jobs:
            self.refuse(self._run(self.release_command(jobs), None))

    def poll(self, jobs: Collection[str]) -> Mapping[str, JobStatus]:
        return self.read_poll(self.ask(self.poll_command(jobs))) if jobs else {}

    def account(self, jobs: Collection[str], since: float) -> Mapping[str, JobEnd]:
        if not jobs:
            return {}
        return self.read_account(self.ask(self.account_command(jobs, since)))

    def cancel(self, jobs: Sequence[str]) -> None:
        size = self._cancels or len(jobs) or 1
        for start in range(0, len(jobs), size):
            part = jobs[start : start + size]
            self.read_cancel(self._run(self.cancel_command(part), None))

    def find(self, tokens: Collection[str]) -> Mapping[str, str]:
        if not tokens:
            return {}
        found = self.read_find(self.ask(self.find_command()))
        return {token: job for token, job in found.items() if token in tokens}

    def ask(self, words: Sequence[str]) -> Done:
        """Run a command that changes nothing."""
        return self._run(words, None)

    def refuse(self, done: Done) -> None:
        """Raise if the command failed: could not be asked, or was asked and refused."""
        if done.status == 0:
            return
        if self.unreachable(done):
            raise SchedulerUnavailable(f"{done.words}\n({' '.join(done.argv[:1])} could not ask)")
        raise SchedulerError(done.words, passing=self.passing(done))

    def passing(self, done: Done) -> bool:
        """Tell whether what was refused may be taken later: where a limit of jobs is reached."""
        return bool(re.search(self.passing_words, done.stderr))

    def unreachable(self, done: Done) -> bool:
        """Tell whether a failed command failed because the scheduler does not answer."""
        return bool(re.search(self.unreachable_words, done.stderr))

    @abc.abstractmethod
    def submit_command(
        self, script: Path, after: Sequence[After], *, token: str, held: bool
    ) -> tuple[str, ...]: ...

    @abc.abstractmethod
    def read_submit(self, done: Done) -> str: ...

    @abc.abstractmethod
    def release_command(self, jobs: Sequence[str]) -> tuple[str, ...]: ...

    @abc.abstractmethod
    def poll_command(self, jobs: Collection[str]) -> tuple[str, ...]: ...

    @abc.abstractmethod
    def read_poll(self, done: Done) -> Mapping[str, JobStatus]: ...

    @abc.abstractmethod
    def account_command(self, jobs: Collection[str], since: float) -> tuple[str, ...]: ...

    @abc.abstractmethod
    def read_account(self, done: Done) -> Mapping[str, JobEnd]: ...

    @abc.abstractmethod
    def cancel_command(self, jobs: Sequence[str]) -> tuple[str, ...]: ...

    def read_cancel(self, done: Done) -> None:
        """Raise only where the scheduler could not be asked: a job already gone is cancelled."""
        if done.status and self.unreachable(done):
            self.refuse(done)

    @abc.abstractmethod
    def find_command(self) -> tuple[str, ...]: ...

    @abc.abstractmethod
    def read_find(self, done: Done) -> Mapping[str, str]:
        """Read token → job id of every job of this user that carries one."""

    @abc.abstractmethod
    def element(self, job: str, index: int | None) -> str: ...

    def accounts(self) -> Sequence[str]:
        return ()
