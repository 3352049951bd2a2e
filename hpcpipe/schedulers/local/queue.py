"""The local scheduler's decisions: which element may start next, and which never can.

`Queue` knows dependencies and `fits` knows room; neither touches a file or a process. An array
costs a byte for each element: its state, at its position among the job's indices.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from hpcpipe.jobs import After
from hpcpipe.schedulers.local.job import Spec, position
from hpcpipe.schedulers.local.spool import RELEASED, Spool

# Ordered so that of several dependencies the greatest verdict is the verdict on all.
READY, BLOCKED, DOOMED, STARTED, WELL, BAD = range(6)
WAITING = (READY, BLOCKED)
_VERDICT = {WELL: READY, BAD: DOOMED}  # on a dependant, by its predecessor's state
_DOOM = bytes.maketrans(bytes(WAITING), bytes((DOOMED, DOOMED)))


@dataclass(eq=False)
class Job:
    """A job's states, and what it waits for; jobs that have ended live on in their dependants."""

    id: str
    spec: Spec
    indices: Sequence[int]
    state: bytearray
    held: bool
    parents: list[tuple[After, Job]] = field(default_factory=list)
    children: list[tuple[After, Job]] = field(default_factory=list)
    left: int = 0  # elements that have not ended
    bad: int = 0

    def element(self, at: int) -> str:
        """Return the id of the element at a position."""
        return f"{self.id}_{self.indices[at]}" if self.spec.array else self.id

    def positions(self, index: int | None) -> Sequence[int]:
        """Return the positions of one element, or (None) of all."""
        if index is None:
            return range(len(self.indices))
        at = position(self.indices, index)
        return () if at is None else (at,)


def read_job(spool: Spool, job: str) -> Job | None:
    """Read a job as its events left it, its dependencies not looked at yet."""
    spec = spool.spec(job)
    if spec is None:
        return None
    indices = spec.indices
    state = bytearray(len(indices))
    held = spec.held
    for event in spool.events(job):
        if event.word == RELEASED:
            held = False
            continue
        at = position(indices, event.first)
        if at is not None:
            end = event.end
            code = STARTED if end is None else BAD if end.reason else WELL
            count = event.last - event.first + 1
            state[at : at + count] = bytes((code,)) * count
    made = Job(job, spec, indices, state, held)
    made.bad = state.count(BAD)
    made.left = len(state) - made.bad - state.count(WELL)
    return made


Buried = list[tuple[Job, list[int]]]


class Queue:
    """The jobs that have not ended, oldest first, and the state of their dependencies.

    ``find`` looks up a job that is not, or no longer, among them.
    """

    def __init__(self, find: Callable[[str], Job | None]) -> None:
        self.jobs: dict[str, Job] = {}
        self._find = find

    def link(self, job: Job) -> None:
        """Add a job, and update its waiting elements by the state of its predecessors."""
        for after in job.spec.after:
            parent = self.jobs.get(after.job) or self._find(after.job)
            if parent is None:  # purged by hand: what nobody can vouch for did not end well
                job.state = job.state.translate(_DOOM)
                continue
            job.parents.append((after, parent))
            parent.children.append((after, job))
        if job.left:
            self.jobs[job.id] = job
        self._judge(job, range(len(job.indices)))

    def add(self, job: Job) -> Buried:
        """Take in a job; return the elements of it that can never start, as `settle` does."""
        self.link(job)
        return self._bury([job])

    def settle(self, job: Job, ended: Sequence[int], *, well: bool) -> Buried:
        """Record that elements have ended; return the elements that can now never start.

        Those are then recorded as failed too, and so on down the graph.
        """
        self._mark(job, ended, WELL if well else BAD)
        return self._bury([child for _, child in job.children])

    def next(self) -> tuple[Job, int] | None:
        """Return the oldest job's first element that may start."""
        for job in self.jobs.values():
            if not job.held and (at := job.state.find(READY)) >= 0:
                return job, at
        return None

    def _mark(self, job: Job, ended: Sequence[int], code: int) -> None:
        was_good = not job.bad
        for at in ended:
            job.state[at] = code
        job.left -= len(ended)
        job.bad += len(ended) * (code == BAD)
        if not job.left:
            self.jobs.pop(job.id, None)
        for after, child in job.children:
            every = range(len(child.indices))
            if after.kind == "each":
                pairs = (child.positions(job.indices[at]) for at in ended)
                self._judge(child, (at for pair in pairs for at in pair))
            elif after.element is not None:
                if position(job.indices, after.element) in ended:
                    self._judge(child, every)
            elif not job.left or (was_good and job.bad):
                self._judge(child, every)

    def _judge(self, job: Job, waiting: Iterable[int]) -> None:
        whole = max((_verdict(a, p, 0) for a, p in job.parents if a.kind == "all"), default=READY)
        pairs = [(after, parent) for after, parent in job.parents if after.kind == "each"]
        for at in waiting:
            if job.state[at] in WAITING:
                index = job.indices[at]
                job.state[at] = max((whole, *(_verdict(a, p, index) for a, p in pairs)))

    def _bury(self, suspects: list[Job]) -> Buried:
        """Record as failed what can never start among these jobs and all that follow them."""
        buried = []
        while suspects:
            job = suspects.pop()
            if doomed := list(_every(job.state, DOOMED)):
                self._mark(job, doomed, BAD)
                buried.append((job, doomed))
                suspects += [child for _, child in job.children]
        return buried


def _every(state: bytearray, code: int) -> Iterator[int]:
    at = state.find(code)
    while at >= 0:
        yield at
        at = state.find(code, at + 1)


def _verdict(after: After, parent: Job, index: int) -> int:
    """Return what one dependency means for the element ``index`` of the dependant."""
    if after.kind == "all" and after.element is None:
        return DOOMED if after.well and parent.bad else BLOCKED if parent.left else READY
    at = position(parent.indices, index if after.element is None else after.element)
    verdict = DOOMED if at is None else _VERDICT.get(parent.state[at], BLOCKED)
    return READY if verdict == DOOMED and not after.well else verdict


@dataclass(frozen=True)
class Machine:
    """What there is: cpus this process may use, and memory in MiB."""

    cpus: int
    memory: int


def fits(
    spec: Spec, running: Collection[Spec], machine: Machine, available: Callable[[], int]
) -> bool:
    """Return whether one more element may start beside those that run.

    The caps a job was submitted with bound all that runs when it starts, whoever submitted that.
    When nothing runs, the first is let in whatever it asks: waiting would change nothing.
    """
    if not running:
        return True
    cpus = spec.cpus + sum(one.cpus for one in running)
    if cpus > min(machine.cpus, spec.most_cpus or machine.cpus):
        return False
    if spec.memory is None:
        return True
    memory = spec.memory + sum(one.memory or 0 for one in running)
    most = min(machine.memory, spec.most_memory or machine.memory)
    return memory <= most and spec.memory <= available()
