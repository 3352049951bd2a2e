"""Job states, reasons for failure, dependencies, and what a scheduler can do.

These terms are hpcpipe's own; only an adapter knows how its scheduler spells them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, NamedTuple


class State(StrEnum):
    """The state of a task; never stored, but derived from submissions, scheduler and disk."""

    WAITING = "waiting"  # not submitted, or its upstreams have not ended
    QUEUED = "queued"
    HELD = "held"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    BLOCKED = "blocked"  # an upstream failed, so it can never run
    LOST = "lost"  # the scheduler has forgotten it, and it left nothing on disk
    UNKNOWN = "unknown"  # the scheduler could not be asked, or gave an unknown state

    @property
    def live(self) -> bool:
        """Return whether the task may still succeed without being submitted again."""
        return self in (State.WAITING, State.QUEUED, State.HELD, State.RUNNING, State.UNKNOWN)

    @property
    def bad(self) -> bool:
        """Return whether the task did not succeed, or can no longer succeed."""
        return self in (State.FAILED, State.CANCELLED, State.BLOCKED, State.LOST)


class About(NamedTuple):
    """What a reason means, and what to do about it, with ``{retry}`` for that command.

    ``raises`` is the resource of which `hpcpipe retry` requests more. If ``varied``, failures for
    this reason have causes that only their words tell apart. ``said`` is a regular expression: a
    task that failed by itself, with words that match it, failed for this reason. ``retried`` is
    whether a retry by itself may help: it counts as one of a task's ``retries``, it is "free" as
    the task is not to blame, or there is "never" one. ``node``: the node may be to blame.
    """

    meaning: str
    remedy: str = "Fix the cause, then: {retry}"
    raises: str = ""
    varied: bool = False
    said: str = ""
    retried: Literal["counted", "free", "never"] = "counted"
    node: bool = False


_AGAIN = "Next: {retry}"
_MORE = "Next: {retry}            requests more of what it ran out of"


class Reason(StrEnum):
    """Why a task did not succeed; ``ERROR`` and ``EXIT`` are caused by the task itself."""

    about: About

    def __new__(cls, word: str, about: About | None = None) -> Reason:
        reason = str.__new__(cls, word)
        reason._value_ = word
        reason.about = about or About("")
        return reason

    ERROR = "error", About("A function raised an exception; its message follows.", varied=True)
    EXIT = (
        "exit",
        About(
            "A command exited with a code other than 0, or did not create its outputs, left one "
            "empty, or left one as an earlier try had made it; the last line of its log follows.",
            varied=True,
        ),
    )
    SIGNAL = "signal", About("It was killed by a signal, for no reason listed below.", node=True)
    MEMORY = (
        "out of memory",
        About(
            "It used more memory than it requested. ``retry`` requests twice as much, or 1.25 "
            "times what it used.",
            _MORE,
            "memory",
        ),
    )
    TIME = (
        "time limit",
        About("It ran longer than it requested. ``retry`` requests twice as much.", _MORE, "time"),
    )
    GPU = (
        "out of GPU memory",
        About(
            "Its GPU has less memory than it needs, which ``--memory`` does not change.",
            "Make it need less, or name GPUs with more memory (--queue, --requires), then: {retry}",
            said=r"(?i)(?<![a-z])(CUDA|HIP|ROCm|XPU|MPS|GPU)(?![a-z]).{0,40}out.?of.?memory|hipErrorOutOfM"
            r"|cudaErrorMemoryAllocation|CUBLAS_STATUS_ALLOC_FAILED|CL_MEM_OBJECT_ALLOCATION_FAIL"
            r"|RESOURCE_?EXHAUSTED: Out of memory|OOM when allocating tensor.*GPU",
        ),
    )
    SPACE = (
        "no space left on disk",
        About(
            "A filesystem is full, or the quota on it is used up.",
            "Free some space, or have the quota raised, then: {retry}",
            said=r"(?i)No space left on device|Dis[ck] quota exceeded|\bE(NOSPC|DQUOT)\b",
        ),
    )
    NODE = "node failure", About("Its node failed.", _AGAIN, retried="free", node=True)
    PREEMPTED = (
        "preempted",
        About("Its node was given to a job that goes first.", _AGAIN, retried="free"),
    )
    CHECKPOINT = (
        "checkpoint",
        About(
            "It saved its state, as ``checkpoint`` says, and left with exit 85 to go on later.",
            _AGAIN,
            retried="free",
        ),
    )
    REVOKED = (
        "revoked",
        About("Another cluster of the federation started it instead.", _AGAIN, retried="free"),
    )
    START = (
        "could not be started",
        About(
            "Its node could not start it; the scheduler's message follows.", varied=True, node=True
        ),
    )
    NEVER = (
        "can never start",
        About(
            "The scheduler says that no node or rule will ever let it start, so it is cancelled.",
            "Request what can be had, or have the limit raised, then: {retry}",
            varied=True,
            retried="never",
        ),
    )
    CANCELLED = (
        "cancelled",
        About("It was cancelled by you or by someone who may.", _AGAIN, retried="never"),
    )
    REFUSED = (
        "refused by the scheduler",
        About(
            "It was never accepted; the scheduler's message follows.", varied=True, retried="never"
        ),
    )
    UPSTREAM = (
        "upstream failed",
        About("A task that it needs did not succeed, so it can never run.", retried="free"),
    )
    BEFORE = (
        "other run",
        About(
            "The run that it was to follow, by ``--after-run``, did not succeed.",
            "Next: {retry}            runs it all the same",
            varied=True,
            retried="never",
        ),
    )
    FEW = (
        "too few upstream",
        About(
            "Fewer of the tasks that it gathers succeeded than ``at_least`` says.",
            _AGAIN,
            varied=True,
            retried="free",
        ),
    )
    LOST = "lost", About("It is not in the queue, and how it ended is unknown.", _AGAIN, node=True)
    DAMAGED = (
        "damaged",
        About(
            "Its outcome on disk is not what was written. ``submit`` and ``retry`` make it again.",
            _AGAIN,
        ),
    )
    GONE = (
        "output gone",
        About(
            "It succeeded, but a file that it returned is gone. ``submit`` and ``retry`` run it "
            "again.",
            _AGAIN,
        ),
    )
    CHANGED = (
        "output changed",
        About(
            "It succeeded, but a file that it returned was changed afterwards. ``submit`` and "
            "``retry`` run it again.",
            _AGAIN,
        ),
    )
    INPUT = (
        "input changed",
        About(
            "An input file is not what it was when the task was planned. ``submit`` and ``retry`` "
            "plan with the files as they are then.",
            "Next: {retry}            plans with the input as it is now",
            varied=True,
            retried="never",
        ),
    )
    UNREACHABLE = (
        "scheduler could not be asked",
        About("Its state is unknown; ask again later.", "Next: {status}"),
    )


class JobStatus(NamedTuple):
    """What the queue says about one job or element, with the scheduler's own word and reason.

    ``State.BLOCKED``: it is queued and can never start, because what it waits for failed.
    ``State.FAILED``: it can never start by itself, for ``reason``, and stays queued until it is
    cancelled.
    """

    state: State
    native: str
    why: str = ""
    reason: Reason = Reason.START


class JobEnd(NamedTuple):
    """What the accounting says about one job or element that has ended.

    ``exit_code`` and ``signal`` are None if the scheduler does not know them; ``max_memory`` and
    ``memory_limit`` are in MiB, ``wall`` in seconds; ``reason`` None means that it succeeded.
    """

    native: str
    reason: Reason | None
    exit_code: int | None = None
    signal: int | None = None
    max_memory: int | None = None
    wall: float | None = None
    host: str = ""
    memory_limit: int | None = None


class After(NamedTuple):
    """One dependency on an accepted job: start after it has succeeded.

    ``each`` pairs elements: element *i* starts after element *i* of ``job``. ``all`` waits for the
    whole of ``job``, or for its one element ``element``. If not ``well``, any end will do: the job
    waits for more than its elements need, so those of them that can run should.
    """

    job: str
    kind: Literal["each", "all"] = "all"
    element: int | None = None
    well: bool = True


class Capabilities(NamedTuple):
    """What a scheduler's arrays and dependencies can do: all that the planner knows about it."""

    arrays: bool = True
    elementwise: bool = True  # After("each")
    element_dependency: bool = True  # After("all", element=i)
    subset: bool = True  # After("each") by an array of fewer elements
    sparse: bool = True  # arrays over any set of indices, not only first..last
    array_of_one: bool = True  # arrays may have a single element
    success: bool = True  # a job after a failed one never starts; else it starts, checks and ends
    hold: bool = True  # jobs can be submitted held and released later
    warns: bool = False  # sends a job a signal ahead of its time limit, if the script asks for it
    mail: bool = False  # sends mail at a job's end, if the script asks for it
    continues_on_submit_host: bool = False  # where a continuation runs, instead of on a node
    tells_kills: bool = False  # the accounting tells of processes killed for memory in good jobs
    first_index: int = 0
    window: int | None = None  # elements of an After("each") array that are considered at a time
    no_path: str = r"(?!)"  # a regular expression that the run folder's path must not match
