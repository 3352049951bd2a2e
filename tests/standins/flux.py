"""Flux 0.88 in miniature: flux submit, jobs, job urgency, cancel, version."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from standins.engine import CPUS, After, Element, Engine, Job, State, Step, Unreachable, refuse

QUEUES = ("batch", "long")
HOST = "vm"
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
    return next((job for job in state.jobs.values() if spell(job.number) == word), None)


def flux(argv: list[str]) -> int:
    """Run one of the commands."""
    commands = {"submit": submit, "jobs": jobs, "cancel": cancel, "job": urgency}
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
    last = {name: values[-1] for name, values in said.items()}
    queue = last.get("queue", "batch")
    if queue not in QUEUES:
        raise Refused(f"[Errno 22] {queue!r} is not a valid queue")
    limit = _seconds(last["time-limit"]) if "time-limit" in last else None
    numbers = []
    with here.open() as state:
        after = [_dependency(state, text) for text in said.get("dependency", [])]
        for copy in _idset(last["cc"]) if "cc" in last else [None]:
            job = Job(
                state.next(),
                last.get("job-name", words[0]),
                f"exec {shlex.join(words)}\n".encode(),
                os.getcwd(),
                dict(os.environ),
                None,
                cpus=int(last.get("cores-per-task", "1")) * int(last.get("ntasks", "1")),
                limit=limit,
                held=last.get("urgency") == "hold",
                after=after,
                facts={"cc": copy},
            )
            state.jobs[job.number] = job
            numbers.append(job.number)
    print(*map(spell, numbers), sep="\n")  # whether anybody reads that or not
    return 0


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


# --- flux cancel, flux job urgency ----------------------------------------------------------------


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


def urgency(argv: list[str], here: Engine) -> int:
    """Change the urgency of a job."""
    command, word, wanted = argv
    if command != "urgency":
        raise Refused(f"flux-job: Unknown command {command}")
    with here.open() as state:
        job = find(state, word)
        if job is None or job.all_are("ended"):
            raise Refused(f"flux-job: {word}: unknown job id")
        job.held = wanted in ("hold", "0")
    return 0


# --- flux jobs ------------------------------------------------------------------------------------


def jobs(argv: list[str], here: Engine) -> int:
    """Print jobs as JSON: the live ones, or those that have ended."""
    if "--json" not in argv:
        raise Refused("the stand-in prints JSON only")
    ended = "inactive" in argv
    words = [word for word in argv if word not in ("--json", "-f", "inactive", "-c", "0")]
    with here.open() as state:
        for word in words:
            raise Refused(f"JobID {word} unknown")
        live = reversed(state.jobs.values())
        rows = [_row(state, job) for job in live if job.all_are("ended") == ended]
    print(json.dumps({"jobs": rows}))
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
