"""Flux 0.88 in miniature: flux submit, bulksubmit, jobs, cancel; and what tells of the instance."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from signal import SIGALRM
from typing import Any, TypeVar

from standins.engine import CPUS, After, Element, Engine, Job, State, Step, Unreachable, refuse

COMMANDS = ("flux",)
T = TypeVar("T")

QUEUES = ("batch", "long")
HOST = "vm"
WORKER = 32  # copies that one worker gives ids to
DIGITS = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
KINDS = {"afterok": "after-success", "afternotok": "after-failure", "afterany": "after-finish"}
OPTIONS = [
    *("job-name", "cc", "ntasks", "cores-per-task", "gpus-per-task", "time-limit", "queue", "bank"),
    *("urgency", "dependency", "requires", "output", "cwd", "env"),
]
SHORT = {"-n": "ntasks", "-c": "cores-per-task", "-t": "time-limit", "-q": "queue", "-B": "bank"}
DOWN = "Unable to connect to Flux: broker socket local:///run/flux/local was not found"


class Refused(Exception):
    """A command is refused: in which words, and with which exit status."""

    def __init__(self, words: str, status: int = 1) -> None:
        super().__init__(words)
        self.status = status


class House:
    """What Flux does with jobs."""

    at_limit = SIGALRM  # to all that a job runs, at its limit of time

    def step(self, state: State, job: Job, element: Element) -> Step:
        """Obey the dependencies; what can never be satisfied, or is too big, fails."""
        del element
        steps = {_judge(state, after) for after in job.after}
        if Step.DROP in steps or (job.cpus > CPUS and not steps - {Step.START}):
            return Step.DROP
        return Step.WAIT if Step.WAIT in steps else Step.START

    def environment(self, job: Job, element: Element) -> Mapping[str, str]:
        """Give the submitter's environment, and what a job knows of itself."""
        del element
        copy = {} if job.facts["cc"] is None else {"FLUX_JOB_CC": str(job.facts["cc"])}
        return {**job.variables, **copy, "FLUX_JOB_ID": spell(job.number)}

    def words(self, job: Job, element: Element, script: Path) -> Sequence[str]:
        """Run the command, which is what the script holds."""
        del job, element
        return ["/bin/sh", str(script)]

    def folder(self, job: Job) -> str:
        """Start where it was submitted from."""
        return job.folder


def _judge(state: State, after: After) -> Step:
    """Say what one dependency lets a job do."""
    (parent,) = state.jobs[after.job].elements.values()
    if parent.state != "ended":
        return Step.WAIT
    good = parent.code == 0 and not parent.cause
    met = {"afterok": good, "afternotok": not good}.get(after.kind, True)
    return Step.START if met else Step.DROP


def spell(number: int) -> str:
    """Spell an id in base 58; ids are far apart, as the real ones are."""
    return base58(number << 24)


def base58(number: int) -> str:
    """Spell any number as an id."""
    digits = ""
    while number:
        number, digit = divmod(number, 58)
        digits = DIGITS[digit] + digits
    return f"ƒ{digits}"


def find(state: State, word: str) -> Job | None:
    """Find the job that an id means."""
    word = word.replace("f", "ƒ", 1) if word.startswith("f") else word
    return next((job for job in state.jobs.values() if spell(job.number) == word), None)


def flux(argv: list[str]) -> int:
    """Run one of the commands."""
    commands = {
        "submit": submit, "bulksubmit": bulksubmit, "jobs": jobs, "cancel": cancel,
        "lsattr": lsattr, "version": version, "config": config, "resource": resource,
    }  # fmt: skip
    try:
        return commands[argv[0]](argv[1:], Engine(House()))
    except Refused as refused:
        return refuse(str(refused), refused.status)
    except Unreachable:
        return refuse(f"flux-{argv[0]}: ERROR: {DOWN}", 1)


# --- flux submit ----------------------------------------------------------------------------------


def submit(argv: list[str], here: Engine) -> int:
    """Submit a command, or copies of it."""
    said, words = _options(argv)
    copies: Sequence[int | None] = _shuffled([*_idset(said["cc"][-1])]) if "cc" in said else [None]
    spelled = [
        ({name: [one.replace("{cc}", str(copy)) for one in values] for name, values in said.items()}
         | {"cc": [str(copy)]}, words)
        for copy in copies
    ]  # fmt: skip
    return _take(spelled, here)


def bulksubmit(argv: list[str], here: Engine) -> int:
    """Submit a command for each value of a list, with what is linked to that."""
    said, words = _options(argv)
    first = words.index(":::")
    lists: list[list[str]] = []
    for word in words[first:]:
        if word in (":::", ":::+"):
            lists.append([])
        else:
            lists[-1].append(word)
    spelled = []
    for values in _shuffled([*zip(*lists, strict=True)]):
        mine = {name: [one.format(*values) for one in given] for name, given in said.items()}
        spelled.append((mine, [word.format(*values) for word in words[:first]]))
    return _take(spelled, here)


def _take(spelled: Sequence[tuple[dict[str, list[str]], list[str]]], here: Engine) -> int:
    """Take jobs, or refuse some; print the ids of those taken."""
    numbers, status = [], 0
    with here.open() as state:
        for said, words in spelled:
            last = {name: values[-1] for name, values in said.items()}
            copy = dict(one.split("=", 1) for one in said.get("env", [])).get(
                "FLUX_JOB_CC", last.get("cc")
            )
            if copy and copy == os.environ.get("STANDIN_REFUSES"):
                status = refuse(f"cc={copy}: [Errno 1] user has max number of jobs queued", 1)
                continue
            queue = last.get("queue", "batch")
            if queue not in QUEUES:
                raise Refused(f"[Errno 22] {queue!r} is not a valid queue")
            job = Job(
                state.next(),
                last.get("job-name", words[0]),
                f"exec {shlex.join(words)}\n".encode(),
                os.getcwd(),
                dict(os.environ),
                None,
                cpus=int(last.get("cores-per-task", "1")) * int(last.get("ntasks", "1")),
                limit=_seconds(last["time-limit"]) if "time-limit" in last else None,
                held=last.get("urgency") == "hold",
                after=[_dependency(state, text) for text in said.get("dependency", [])],
                facts={"cc": copy if copy != "None" else None},
            )
            state.jobs[job.number] = job
            numbers.append(job.number)
    print(*map(spell, numbers), sep="\n")  # whether anybody reads that or not
    return status


def _shuffled(copies: Sequence[T]) -> Sequence[T]:
    """Order many copies as several workers do, which number them: not by their indices."""
    return copies if len(copies) <= WORKER else [*copies[1::2], *copies[::2]]


def _options(argv: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    said: dict[str, list[str]] = {}
    words = list(argv)
    while words and words[0].startswith("-"):
        option, equals, value = words.pop(0).partition("=")
        name = option[2:]
        if not option.startswith("--"):
            name, value = SHORT.get(option[:2], option), name
        if name not in OPTIONS:
            usage = "usage: flux submit [OPTIONS...] COMMAND [ARGS...]"
            raise Refused(f"{usage}\nflux submit: error: unrecognized arguments: {option}", 2)
        said.setdefault(name, []).append(value if equals or value else words.pop(0))
    return said, words


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    if match is None:
        raise Refused("flux-submit: ERROR: invalid Flux standard duration")
    return float(match[1]) * {"s": 1, "": 60, "m": 60, "h": 3600, "d": 86400}[match[2]]


def _idset(text: str) -> Iterator[int]:
    for part in text.split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def _dependency(state: State, text: str) -> After:
    kind, _, word = text.partition(":")
    if kind not in KINDS:
        raise Refused(f'[Errno 22] dependency scheme "{kind}" not supported')
    job = find(state, word)
    if job is None:
        raise Refused(f"[Errno 22] dependency: {kind}: id {word}: job not found")
    return After(kind, job.number)


# --- flux cancel ----------------------------------------------------------------------------------


def cancel(argv: list[str], here: Engine) -> int:
    """Cancel jobs."""
    status = 0
    with here.open() as state:
        for word in argv:
            job = find(state, word)
            if job is None:
                spelled = base58(int(word)) if word.isdigit() else word
                status = refuse(f"flux-cancel: ERROR: {spelled}: unknown job id", 1)
            elif job.all_are("ended"):
                status = refuse(f"flux-cancel: ERROR: {word}: job is inactive", 1)
            else:
                here.cancel(*job.elements.values())
    return status


# --- flux jobs ------------------------------------------------------------------------------------


def jobs(argv: list[str], here: Engine) -> int:
    """Print jobs as JSON: the live ones, or those that have ended."""
    if "--json" not in argv:
        raise Refused("the stand-in prints JSON only")
    ended = "inactive" in argv
    words = [word for word in argv if word not in ("--json", "-f", "inactive", "-c", "0")]
    with here.open() as state:
        asked = [find(state, word) or word for word in words]
        for one in asked:
            if isinstance(one, str):
                raise Refused(f"JobID {one} unknown")
        every = [job for job in reversed(state.jobs.values()) if job.all_are("ended") == ended]
        rows = [_row(state, job) for job in (asked or every) if isinstance(job, Job)]
    print(json.dumps(rows[0] if len(words) == 1 else {"jobs": rows}))
    return 0


def lsattr(argv: list[str], here: Engine) -> int:
    """List what a broker knows of itself."""
    del argv
    with here.open():
        folder = os.environ["STANDIN"]
    for name, value in (("hostlist", HOST), ("instance-level", "0"), ("rundir", folder)):
        print(f"{name:40}{value}")
    return 0


def version(argv: list[str], here: Engine) -> int:
    """Print the version."""
    del argv, here
    print("commands:    \t\t0.88.0")
    return 0


def config(argv: list[str], here: Engine) -> int:
    """Print the configuration: two queues, of which one is the default."""
    del argv
    with here.open():
        system = {"queue": QUEUES[0]}
    policy = {"jobspec": {"defaults": {"system": system}}}
    print(json.dumps({"policy": policy, "queues": {name: {} for name in QUEUES}}))
    return 0


def resource(argv: list[str], here: Engine) -> int:
    """Print the one host."""
    del argv
    with here.open():
        group = {"rank": "0", "children": {"core": f"0-{CPUS - 1}"}}
    print(json.dumps({"version": 1, "execution": {"R_lite": [group], "nodelist": [HOST]}}))
    return 0


def _row(state: State, job: Job) -> dict[str, Any]:
    (element,) = job.elements.values()
    unmet = [one for one in job.after if _judge(state, one) is not Step.START]
    waits = [f"{KINDS[kind]}={spell(number)}" for kind, number, _ in unmet]
    row: dict[str, Any] = {
        "id": job.number << 24,
        "jobid": spell(job.number),
        "name": job.name,
        "cwd": job.folder,
        "urgency": 0 if job.held else 16,
        "dependencies": waits if element.state == "waiting" or element.cause else [],
        "exception": {"occurred": False},
        "t_submit": job.submitted,
    }
    if element.started:
        row |= {"t_run": element.started, "nodelist": HOST, "ncores": job.cpus}
    if element.state == "ended":
        return row | {"state": "INACTIVE"} | _ended(job, element, waits)
    row = {name: value for name, value in row.items() if value != ""}  # it leaves out what is empty
    return row | {"state": "RUN" if element.state == "running" else "DEPEND" if waits else "SCHED"}


def _ended(job: Job, element: Element, waits: Sequence[str]) -> dict[str, Any]:
    kind, note = {
        "time": ("timeout", "resource allocation expired"),
        "cancelled": ("cancel", ""),
        "dropped": ("dependency", f"dependency {' '.join(waits)} can never be satisfied"),
    }.get(element.cause, ("", ""))
    if kind == "dependency" and not waits:
        kind, note = "alloc", f"unsatisfiable request: need {job.cpus} slot(s) of 1 core(s)"
    code = element.code or 0
    code = {"time": 142, "cancelled": 143}.get(element.cause, 128 - code if code < 0 else code)
    good = code == 0 and not element.cause
    result = {"timeout": "TIMEOUT", "cancel": "CANCELED"}.get(kind)
    ended: dict[str, Any] = {"result": result or ("COMPLETED" if good else "FAILED")}
    if kind:
        ended["exception"] = {"occurred": True, "severity": 0, "type": kind, "note": note}
    if not element.started:
        return ended | {"returncode": -128 if kind == "cancel" else 1}
    wall = element.ended - element.started
    return ended | {"returncode": code, "waitstatus": code << 8, "runtime": wall}
