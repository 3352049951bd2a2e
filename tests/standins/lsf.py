"""LSF 10.1 in miniature, from its documentation: bsub, bjobs, bresume, bkill; and what tells of the
cluster: lsid, bparams, bqueues, bhosts, lshosts.

A limit of one minute, the least there is, lasts ``$STANDIN_MINUTE`` seconds, 60 if not said.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from getpass import getuser
from pathlib import Path

from standins.engine import CPUS, After, Element, Engine, Job, State, Step, Unreachable, refuse

COMMANDS = ("bhosts", "bjobs", "bkill", "bparams", "bqueues", "bresume", "bsub", "lshosts", "lsid")

MAX_INDEX = 1000
QUEUES = ("normal", "long")
VALUED = ("-J", "-Jd", "-w", "-o", "-e", "-q", "-P", "-G", "-n", "-R", "-M", "-W", "-gpu", "-sla",
          "-u")  # fmt: skip
FLAGS = ("-H", "-ti", "-rn", "-r", "-N")
HOST = "lsfhost"
QUEUE = """
QUEUE: {name}
  -- Of the stand-in.

PARAMETERS/STATISTICS
PRIO NICE STATUS          MAX JL/U JL/P JL/H NJOBS  PEND   RUN SSUSP USUSP  RSV PJOBS
 30    0  Open:Active       -    -    -    -     0     0     0     0     0    0     0

USERS: all
HOSTS:  all
"""
CONDITION = r'(done|ended)\((?:(\d+)(?:\[(\d+)\])?|"([^"\[]+)(\[\*\])?")\)'


class Refused(Exception):
    """A command is refused, in these words."""


def command(function: Callable[[list[str]], int]) -> Callable[[list[str]], int]:
    """Make a function a command."""

    def run(argv: list[str]) -> int:
        try:
            return function(argv)
        except Refused as refused:
            return refuse(str(refused), 255)
        except Unreachable:
            return refuse("LSF is down. Please wait ...", 255)

    return run


# --- the rules ------------------------------------------------------------------------------------


class House:
    """What LSF does with jobs."""

    def step(self, state: State, job: Job, element: Element) -> Step:
        """Obey the dependencies; what can never be met ends a job if it was asked to."""
        steps = {_judge(state, after, element) for after in job.after}
        if Step.DROP in steps:
            return Step.DROP if "-ti" in job.facts else Step.WAIT
        return Step.WAIT if Step.WAIT in steps or job.cpus > CPUS else Step.START

    def environment(self, job: Job, element: Element) -> Mapping[str, str]:
        """Give the submitter's environment, and what a job knows of itself."""
        index = "0" if element.index is None else str(element.index)
        own = {"LSB_JOBID": str(job.number), "LSB_JOBINDEX": index, "LSB_JOBNAME": job.name}
        return {**job.variables, **own}

    def words(self, job: Job, element: Element, script: Path) -> Sequence[str]:
        """Run the command line, which is what the script holds."""
        del job, element
        return ["/bin/sh", str(script)]

    def folder(self, job: Job) -> str:
        """Start where it was submitted from."""
        return job.folder


def _judge(state: State, after: After, element: Element) -> Step:
    """Say what one condition lets an element do."""
    parent = state.jobs[after.job]
    kind, star, _ = after.kind.partition("*")
    index = element.index if star else after.element
    elements = [*parent.elements.values()] if index is None else [parent.elements[index]]
    bad = any(one.state == "ended" and (one.code != 0 or one.cause) for one in elements)
    if kind == "done" and bad:
        return Step.DROP
    return Step.START if all(one.state == "ended" for one in elements) else Step.WAIT


def engine() -> Engine:
    """Return this user's LSF."""
    return Engine(House())


# --- bsub -----------------------------------------------------------------------------------------


@command
def bsub(argv: list[str]) -> int:
    """Submit a command line."""
    said, words = _options(argv)
    if not words:
        raise Refused("Empty job. Job not submitted.")
    queue = said.get("-q", "normal")
    if queue not in QUEUES:
        raise Refused(f"{queue}: No such queue. Job not submitted.")
    name, indices = _name(said["-J"]) if "-J" in said else (" ".join(words), None)
    facts = {"queue": queue, "user": getuser(), "description": said.get("-Jd", "")}
    if "-ti" in said:
        facts["-ti"] = ""
    with engine().open() as state:
        job = Job(
            state.next(),
            name,
            " ".join(words).encode() + b"\n",
            os.getcwd(),
            dict(os.environ),
            indices,
            cpus=int(said.get("-n", "1")),
            memory=_memory(said["-M"]) if "-M" in said else None,
            limit=_time(said["-W"]) if "-W" in said else None,
            held="-H" in said,
            after=[*_conditions(state, said["-w"], indices)] if "-w" in said else (),
            output=said.get("-o", "/dev/null"),
            facts=facts,
        )
        state.jobs[job.number] = job
    print(f"Job <{job.number}> is submitted to queue <{queue}>.")
    return 0


def _options(argv: list[str]) -> tuple[dict[str, str], list[str]]:
    said: dict[str, str] = {}
    words = list(argv)
    while words and words[0].startswith("-"):
        option = words.pop(0)
        if option in FLAGS:
            said[option] = ""
        elif option in VALUED and words:
            said[option] = words.pop(0)
        else:
            raise Refused(f"bsub: illegal option -- {option}. Job not submitted.")
    return said, words


def _name(text: str) -> tuple[str, Sequence[int] | None]:
    match = re.fullmatch(r"([^\s\[\]/]+)(?:\[([\d,:-]+)\](?:%\d+)?)?", text)
    if match is None:
        raise Refused("Bad job name. Job not submitted.")
    if match[2] is None:
        return match[1], None
    indices: list[int] = []
    for part in match[2].split(","):
        span, _, step = part.partition(":")
        first, _, last = span.partition("-")
        indices += range(int(first), int(last or first) + 1, int(step or 1))
    if not indices or min(indices) < 1 or max(indices) > MAX_INDEX:
        raise Refused("Job array index too large or not positive. Job not submitted.")
    return match[1], indices


def _memory(text: str) -> int:
    match = re.fullmatch(r"(\d+)(KB|MB|GB)", text)
    if match is None:
        raise Refused(f"{text}: Bad memory limit. Job not submitted.")
    return int(int(match[1]) * {"KB": 1 / 1024, "MB": 1, "GB": 1024}[match[2]])


def _time(text: str) -> float:
    match = re.fullmatch(r"(?:(\d+):)?(\d+)", text)
    if match is None:
        raise Refused(f"{text}: Bad run limit. Job not submitted.")
    minutes = int(match[1] or 0) * 60 + int(match[2])
    # No other limit: on a busy machine, quick minutes end what only waits for its test.
    return float(os.environ.get("STANDIN_MINUTE", "60")) if minutes == 1 else minutes * 60


def _conditions(state: State, text: str, indices: Sequence[int] | None) -> Iterator[After]:
    for part in text.split("&&"):
        match = re.fullmatch(CONDITION, part.strip())
        if match is None:
            raise Refused("Bad dependency condition. Job not submitted.")
        kind, number, index, name, star = match.groups()
        jobs = [job for job in state.jobs.values() if job.name == name or str(job.number) == number]
        if not jobs:
            raise Refused(f"{number or name}: No matching job found. Job not submitted.")
        for job in jobs:
            if star and list(job.indices or ()) != list(indices or ()):
                raise Refused("Job arrays differ in size. Job not submitted.")
            yield After(f"{kind}*" if star else kind, job.number, int(index) if index else None)


# --- bresume, bkill -------------------------------------------------------------------------------


@command
def bresume(argv: list[str]) -> int:
    """Let held jobs go."""

    def resume(job: Job, elements: Sequence[Element], here: Engine) -> str:
        del elements, here
        job.held = False
        return "is being resumed"

    return _each(argv, resume)


@command
def bkill(argv: list[str]) -> int:
    """End jobs or elements."""

    def kill(job: Job, elements: Sequence[Element], here: Engine) -> str:
        del job
        for element in elements:
            here.cancel(element)
        return "is being terminated"

    return _each(argv, kill)


def _each(words: Sequence[str], act: Callable[[Job, Sequence[Element], Engine], str]) -> int:
    status, here = 0, engine()
    with here.open() as state:
        for word in words:
            found = _find(state, word)
            if found is None:
                status = refuse(f"Job <{word}>: No matching job found", 255)
            elif all(element.state == "ended" for element in found[1]):
                status = refuse(f"Job <{word}>: Job has already finished", 255)
            else:
                print(f"Job <{word}> {act(*found, here)}")
    return status


def _find(state: State, word: str) -> tuple[Job, list[Element]] | None:
    match = re.fullmatch(r"(\d+)(?:\[(\d+)\])?", word)
    job = state.jobs.get(int(match[1])) if match else None
    if job is None or match is None:
        return None
    if match[2] is None:
        return job, [*job.elements.values()]
    element = job.elements.get(int(match[2]))
    return None if element is None else (job, [element])


# --- bjobs ----------------------------------------------------------------------------------------


@command
def bjobs(argv: list[str]) -> int:
    """Print jobs as JSON."""
    every, words = "-a" in argv, [word for word in argv if word not in ("-a", "-json")]
    if "-json" not in argv or words[:1] != ["-o"]:
        raise Refused("the stand-in prints JSON only")
    fields, words = words[1].split(), words[2:]
    status, rows = 0, []
    with engine().open() as state:
        for word in words or map(str, state.jobs):
            found = _find(state, word)
            if found is None:
                status = 255
                rows.append({"JOBID": word, "ERROR": f"Job <{word}> is not found"})
                continue
            for element in found[1]:
                if words or every or element.state != "ended":
                    row = _row(state, found[0], element)
                    rows.append({field.upper(): row[field] for field in fields})
    if not rows:
        refuse("No unfinished job found", 0)
    answer = {"COMMAND": "bjobs", "JOBS": len(rows), "RECORDS": rows}
    print(json.dumps(answer, indent=2, separators=(",", ":")))
    return status


def _row(state: State, job: Job, element: Element) -> dict[str, str]:
    index = "" if element.index is None else f"[{element.index}]"
    code, reason = _ended(element)
    return {
        "jobid": str(job.number),
        "jobindex": str(element.index or 0),
        "job_name": job.name + index,
        "job_description": job.facts["description"],
        "stat": _stat(job, element),
        "exit_code": code,
        "exit_reason": reason,
        "run_time": f"{max(0, element.ended - (element.started or element.ended)):.0f} second(s)",
        "max_mem": f"{element.memory} Mbytes",
        "exec_host": HOST if element.started else "-",
        "pend_reason": _pends(state, job, element),
    }


def _stat(job: Job, element: Element) -> str:
    if element.state == "waiting":
        return "PSUSP" if job.held else "PEND"
    if element.state == "running":
        return "RUN"
    return "DONE" if element.code == 0 and not element.cause else "EXIT"


def _ended(element: Element) -> tuple[str, str]:
    """Spell exit_code and exit_reason."""
    told = {
        "time": ("140", "TERM_RUNLIMIT: job killed after reaching LSF run time limit"),
        "memory": ("137", "TERM_MEMLIMIT: job killed after reaching LSF memory usage limit"),
        "cancelled": ("130", "TERM_OWNER: job killed by owner"),
        "dropped": ("", "TERM_ORPHAN_SYSTEM: The orphan job was automatically terminated by LSF"),
    }
    if element.cause:
        return told[element.cause]
    code = element.code or 0
    return (str(128 - code) if code < 0 else str(code) if code else ""), "-"


def _pends(state: State, job: Job, element: Element) -> str:
    if element.state != "waiting":
        return "-"
    steps = {_judge(state, after, element) for after in job.after}
    if Step.DROP in steps:
        return "Dependency condition invalid or never satisfied;"
    if Step.WAIT in steps:
        return "Job dependency condition not satisfied;"
    return "New job is waiting for scheduling;"


# --- the cluster ----------------------------------------------------------------------------------


def telling(function: Callable[[], str]) -> Callable[[list[str]], int]:
    """Make a function a command that tells of the cluster, whatever its options."""

    def tell(argv: list[str]) -> int:
        del argv
        with engine().open():
            print(function())
        return 0

    tell.__name__ = function.__name__
    return command(tell)


@telling
def lsid() -> str:
    """Tell the version."""
    return "IBM Spectrum LSF Standard 10.1.0.13, Apr 15 2022\n\nMy cluster name is standin"


@telling
def bparams() -> str:
    """Tell the settings."""
    return f"DEFAULT_QUEUE = {QUEUES[0]}\nMAX_JOB_ARRAY_SIZE = {MAX_INDEX}\nCLEAN_PERIOD = 3600"


@telling
def bqueues() -> str:
    """Tell the queues."""
    return ("-" * 78).join(QUEUE.format(name=name) for name in QUEUES)


@telling
def bhosts() -> str:
    """Tell the one host's slots, as JSON."""
    rows = [{"HOST_NAME": HOST, "MAX": str(CPUS), "NGPUS": "-"}]
    return json.dumps({"COMMAND": "bhosts", "HOSTS": len(rows), "RECORDS": rows}, indent=2)


@telling
def lshosts() -> str:
    """Tell what the one host is."""
    head = "HOST_NAME  type    model     cpuf  ncpus maxmem maxswp server RESOURCES"
    return f"{head}\n{HOST}    X86_64  Intel_E5  12.5  {CPUS}  23.5G  -      Yes    (mg)"
