"""The scheduler protocol, and its base class for schedulers driven by commands.

`Scheduler` is all that the rest of hpcpipe knows of a scheduler. `CommandScheduler` writes its
verbs once, from pure pairs: a method that returns a command, and one that reads its output. A
subclass never starts a process. The law that binds every adapter:

1. ``poll`` and ``account`` take many ids in one command; without ids they run no command.
2. A missing id is absent from the mapping, never an exception.
3. Unreachable raises SchedulerUnavailable; refused raises SchedulerError, its own words first.
4. A word never seen is State.UNKNOWN with the word kept; it never raises. An answer that cannot be
   read (cut short, or with a banner inside) raises SchedulerUnavailable: "could not read …".
5. Array rows are spread into elements here; nothing else knows the syntax. An element is found by
   its own index, never by its place in an answer.
6. ``submit`` returns an id only where the answer proves it: exit status 0 and exactly one id (as
   many ids as elements where each has its own). Status and words without any id are a refusal, a
   SchedulerError. Every other answer raises SubmitUnclear, and whoever asked looks for the token.
7. Commands are tuples of words, no shell. Extra options of the site pass through whole.
8. No logging, no sleeping, no job objects, no import from above.
9. The module docstring is the manual: commands, versions seen, site keys, oddities.
10. ``instance`` names the scheduler that ids belong to: the same from every login node and shell,
    and for every adapter that talks to it. It reads files and the environment rather than ask.
11. What the user set for their own eyes (SQUEUE_PARTITION, ~/.sge_qstat, …) hides no job from
    ``poll``, ``account`` and ``find``.
12. ``account`` may know that an element has *not* ended: then it returns a JobStatus. What it
    knows nothing about is absent.
13. What a job asks for is in its script and in the words of the submit command. No variable of the
    submitter adds to it, and none of an outer job reaches the task: `hand_over` takes them away.
"""

from __future__ import annotations

import abc
import os
import re
import subprocess
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple, Protocol, TypeVar, runtime_checkable

from hpcpipe.errors import SchedulerError, SchedulerUnavailable, SubmitUnclear
from hpcpipe.jobs import After, Capabilities, JobEnd, JobStatus
from hpcpipe.schedulers.environment import left_behind


class Done(NamedTuple):
    """What a command left behind."""

    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str = ""

    @property
    def program(self) -> str:
        """The program that answered, which ``env`` may have started."""
        return program(self.argv)

    @property
    def words(self) -> str:
        """The scheduler's own words, for a person."""
        return (self.stderr.strip() or self.stdout.strip()) or f"{self.program} said nothing"


T = TypeVar("T")
Run = Callable[[Sequence[str], Path | None], Done]
# What readers stumble over; a SyntaxError is that of XML.
UNREADABLE = (ArithmeticError, AttributeError, LookupError, SyntaxError, TypeError, ValueError)
_FEW = 5  # ids in a message
_NO_PROGRAM = 127  # what `env` ends with
_UNTRUSTED = 90  # what a script ends with for the same reason: see worker/outcome.py


def program(argv: Sequence[str]) -> str:
    """Name the program that a command runs."""
    words = iter(argv)
    for word in words:
        if word == "-u":
            next(words)
        elif word != "env" and "=" not in word:
            return word
    return argv[0]


def without(hidden: str, **variables: str) -> tuple[str, ...]:
    """Begin a command that does not see variables of the user whose names match ``hidden``."""
    names = sorted(name for name in os.environ if re.fullmatch(hidden, name))
    words = (*_unset(names), *(f"{name}={value}" for name, value in variables.items()))
    return ("env", *words) if words else ()


def in_clean_environment(words: Sequence[str]) -> tuple[str, ...]:
    """Have a submit command run without what `left_behind` names."""
    unset = _unset(left_behind(os.environ))
    return ("env", *unset, *words) if unset else tuple(words)


def _unset(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(word for name in names for word in ("-u", name))


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
        raise _missing(argv[0]) from None
    except subprocess.TimeoutExpired as late:
        said = (late.stderr or b"").decode(errors="replace").strip()
        silent = f"{program(argv)} did not answer in {timeout:.0f} s"
        raise SchedulerUnavailable(f"{said}\n({silent})" if said else silent) from None
    if done.returncode == _NO_PROGRAM and argv[0] == "env":
        raise _missing(program(argv))
    decode = (done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
    return Done(tuple(argv), done.returncode, *decode)


def _missing(name: str) -> SchedulerUnavailable:
    return SchedulerUnavailable(f"{name}: command not found; is this a login node of the cluster?")


def setting(name: str, *files: str | Path) -> str:
    """Read ``NAME=value`` in the first of these files that has it; empty if missing in all."""
    for file in files:
        try:
            text = Path(file).read_text("utf-8", "replace")
        except OSError:
            continue
        if match := re.search(rf"(?im)^\s*{name}\s*=\s*[\"']?([^\s\"'#]+)", text):
            return match[1]
    return ""


def printed(done: Done, pattern: str) -> Sequence[str]:
    """Find what a pattern matches in whole lines: the beginning of an id is another id."""
    return re.findall(pattern, done.stdout[: done.stdout.rfind("\n") + 1])


def shown(job: str) -> str:
    """Shorten a job's id for a screen: Flux has an id for each element."""
    first, *others = job.split(",")
    return f"{first},…,{others[-1]}" if len(others) > 2 else job


def directives(script: Path, mark: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Read what runs a script, and the words of its directives.

    This is for schedulers that would run it as any command, and read neither.
    """
    import shlex  # not for each `hpcpipe status`

    first, *lines = script.read_text("utf-8", "surrogateescape").splitlines()
    marked = [line.removeprefix(mark) for line in lines if line.startswith(f"{mark} ")]
    return tuple(first.removeprefix("#!").split()), tuple(shlex.split("\n".join(marked)))


def launch(script: Path, shell: Sequence[str] = ()) -> str:
    """Return the line of sh that runs a script where it lies, from its run folder.

    It is for schedulers that keep no copy: somebody else may have put another folder in the place
    of the user's meanwhile. It has no ``$``, ``"`` or braces, which some schedulers interpret.
    """
    import shlex  # not for each `hpcpipe status`

    file = f"{script.parent.name}/{script.name}"
    places = [shlex.quote(place) for place in (".", script.parent.name, file)]
    mine = " && ".join(f"[ -O {place} ]" for place in places)
    safe = f"find {' '.join(places)} -prune ! -perm -020 ! -perm -002 | grep -c ."
    run = shlex.join((*shell, file if shell else f"./{file}"))
    return f"{mine} && [ `{safe}` = {len(places)} ] || exit {_UNTRUSTED}; exec {run}"


class Scheduler(Protocol):
    """The verbs of a scheduler, in its own spelling of ids."""

    name: ClassVar[str]
    capabilities: ClassVar[Capabilities]

    def instance(self) -> str:
        """Name the very scheduler that ids belong to: ``slurm:alps``.

        Raises SchedulerUnavailable where that cannot be worked out from here.
        """
        ...

    def submit(
        self, script: Path, after: Sequence[After] = (), *, token: str, held: bool = False
    ) -> str:
        """Submit a script from its run folder (the folder above ``batches``); return the id.

        Raises SchedulerError for a plain refusal, and SubmitUnclear where the job may exist.
        """
        ...

    def release(self, jobs: Sequence[str]) -> None:
        """Release held jobs."""
        ...

    def poll(self, jobs: Collection[str]) -> Mapping[str, JobStatus]:
        """Return the queue's state of every live element of these jobs, keyed by `element` ids."""
        ...

    def account(self, jobs: Collection[str], since: float) -> Mapping[str, JobEnd | JobStatus]:
        """Return how each element of these jobs ended, or a JobStatus where the accounting knows
        that it has not; ``since`` is the earliest submission, in seconds since 1970."""
        ...

    def cancel(self, jobs: Sequence[str]) -> None:
        """Cancel jobs or elements; those already gone are no error."""
        ...

    def find(self, tokens: Collection[str]) -> Mapping[str, str]:
        """Find held, queued and running jobs by the token of their submission: token → job id."""
        ...

    def element(self, job: str, index: int | None) -> str:
        """Return the id of one element of an array (``index``), or of a plain job (None)."""
        ...

    def accounts(self) -> Sequence[str]:
        """List the accounts this user may charge, the default one first; empty if unknown."""
        ...

    def count(self) -> int | None:
        """Count the elements of all this user's jobs in the queue; None if unknown."""
        ...


@runtime_checkable
class TellsStarts(Protocol):
    """A scheduler that starts jobs again under the same id, and whose accounting has each start."""

    def starts(self, element: str, since: float) -> Sequence[JobEnd]:
        """Return how all starts of an element but the last ended; ``since`` is as for `account`."""
        ...


class CommandScheduler(abc.ABC):
    """A scheduler as pure pairs: a command, and the reading of its output.

    ``run`` starts the commands; tests hand in another. ``cancels`` is how many jobs the site lets
    one cancel command have.
    """

    name: ClassVar[str]
    capabilities: ClassVar[Capabilities]
    unreachable_words: ClassVar[str]  # a pattern of the words of a command that could not ask
    passing_words: ClassVar[str] = r"(?!)"  # or that some limit of jobs refuses for now

    def __init__(self, run: Run = run_command, cancels: int | None = None) -> None:
        self._run = run
        self._cancels = cancels
        self._instance = ""

    def instance(self) -> str:
        self._instance = self._instance or self.find_instance()
        if not self._instance:
            raise SchedulerUnavailable(
                f"{self.name}: no configuration or command here names the cluster; "
                "is this a login node of it?"
            )
        return f"{self.name}:{self._instance}"

    @abc.abstractmethod
    def find_instance(self) -> str:
        """Find what distinguishes this scheduler from all others of its kind; empty if unknown."""

    def submit(
        self, script: Path, after: Sequence[After] = (), *, token: str, held: bool = False
    ) -> str:
        # The run folder as working folder: the script's own paths are relative to it, so that no
        # odd character of it ever has to be spelled in a directive.
        words = self.submit_command(script, after, token=token, held=held)
        return self.read_submit(self.hand_over(words, script.parent.parent))

    def hand_over(self, words: Sequence[str], folder: Path) -> Done:
        """Run a submit command; one that did not answer may have been obeyed all the same."""
        try:
            done = self._run(in_clean_environment(words), folder)
        except SchedulerUnavailable as error:
            raise SubmitUnclear(str(error)) from None
        return done._replace(argv=tuple(words))  # whose places an adapter may know

    def release(self, jobs: Sequence[str]) -> None:
        if jobs:
            self.refuse(self._run(self.release_command(jobs), None))

    def poll(self, jobs: Collection[str]) -> Mapping[str, JobStatus]:
        return self.read(self.read_poll, self.ask(self.poll_command(jobs))) if jobs else {}

    def account(self, jobs: Collection[str], since: float) -> Mapping[str, JobEnd | JobStatus]:
        if not jobs:
            return {}
        return self.read(self.read_account, self.ask(self.account_command(jobs, since)))

    def cancel(self, jobs: Sequence[str]) -> None:
        size = self._cancels or len(jobs) or 1
        for start in range(0, len(jobs), size):
            part = jobs[start : start + size]
            self.read_cancel(self._run(self.cancel_command(part), None))

    def find(self, tokens: Collection[str]) -> Mapping[str, str]:
        if not tokens:
            return {}
        found = self.read(self.read_find, self.ask(self.find_command()))
        return {token: job for token, job in found.items() if token in tokens}

    def ask(self, words: Sequence[str]) -> Done:
        """Run a command that changes nothing."""
        return self._run(words, None)

    def read(self, reader: Callable[[Done], T], done: Done) -> T:
        """Read the answer to a question. Whatever a reader stumbles over, the answer is not whole:
        nothing may be concluded from it."""
        try:
            return reader(done)
        except UNREADABLE as error:
            raise self.unread(done, error) from error

    def refuse(self, done: Done) -> None:
        """Raise if the command failed: could not be asked, or was asked and refused."""
        if done.status and (done.status < 0 or self.unreachable(done)):
            self.answered(done)
        if done.status:
            raise SchedulerError(done.words, passing=self.passing(done))

    def answered(self, done: Done) -> None:
        """Raise if a question failed: whatever the words are, nothing is known of the jobs."""
        if done.status:
            raise SchedulerUnavailable(f"{done.words}\n({done.program} could not ask)")

    def prove(self, done: Done, ids: Sequence[str], elements: int = 1) -> Sequence[str]:
        """Return the ids in the answer to a submission, if it proves that these were accepted.

        A refusal is a non-zero status, words, and no id; anything else proves neither.
        """
        ids = [*dict.fromkeys(ids)]
        if done.status == 0 and len(ids) == elements:
            return ids
        said = (done.stderr + done.stdout).strip()
        if done.status > 0 and said and not ids and not self.unreachable(done):
            raise SchedulerError(done.words, passing=self.passing(done))
        few = ids if len(ids) < _FEW else [*ids[:2], "…", ids[-1]]
        which = ", ".join(few) or "no job id"
        gave = f"{done.program} gave {which}, with exit status {done.status}"
        raise SubmitUnclear(f"{done.words}\n({gave})")

    def lines(self, done: Done, row: str) -> Iterator[re.Match[str]]:
        """Read the rows of a table. Lines that do not begin as a row does are somebody's banner.

        ``row`` must match a whole row. Raises SchedulerUnavailable for one that is cut short.
        """
        self.uncut(done)
        for line in done.stdout.splitlines():
            if line[:1].isdigit():
                if (match := re.fullmatch(row, line)) is None:
                    raise self.unread(done, line[:200])
                yield match

    def uncut(self, done: Done) -> None:
        """Raise SchedulerUnavailable for an answer whose last line is cut short."""
        if done.stdout and not done.stdout.endswith("\n"):
            raise self.unread(done, f"it is cut short: …{done.stdout[-60:]}")

    def unread(self, done: Done, why: object) -> SchedulerUnavailable:
        """Make the error for an answer that cannot be read, wholly or in part."""
        words = done.stderr.strip()
        said = f"could not read the answer of {done.program}: {why}"
        return SchedulerUnavailable(f"{words}\n({said})" if words else said)

    def passing(self, done: Done) -> bool:
        """Return whether a refused job may be accepted later, since a limit of jobs is reached."""
        return bool(re.search(self.passing_words, done.stderr))

    def unreachable(self, done: Done) -> bool:
        """Return whether a command failed because the scheduler does not answer."""
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
    def read_account(self, done: Done) -> Mapping[str, JobEnd | JobStatus]: ...

    @abc.abstractmethod
    def cancel_command(self, jobs: Sequence[str]) -> tuple[str, ...]: ...

    def read_cancel(self, done: Done) -> None:
        """Raise only where the scheduler could not be asked: a job already gone is cancelled."""
        if done.status < 0 or (done.status and self.unreachable(done)):
            self.answered(done)

    @abc.abstractmethod
    def find_command(self) -> tuple[str, ...]: ...

    @abc.abstractmethod
    def read_find(self, done: Done) -> Mapping[str, str]:
        """Read token → job id of every job of this user that carries one."""

    @abc.abstractmethod
    def element(self, job: str, index: int | None) -> str: ...

    def accounts(self) -> Sequence[str]:
        return ()

    def count(self) -> int | None:
        return None
