"""Torque (master of 2020) in miniature: qsub, qstat, qdel, qrls, qselect.

What comes after an array of which an element failed stays held for ever, as with the real one. An
ended job is forgotten after KEEP seconds.
"""

from __future__ import annotations

import getopt
import os
import re
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from getpass import getuser
from pathlib import Path
from xml.sax.saxutils import escape

from standins import qtools
from standins.engine import CPUS, After, Element, Engine, Job, State, Step, refuse
from standins.qtools import SERVER, Options, Refused, clock, job_id, minute

COMMANDS = ("qdel", "qrls", "qselect", "qstat", "qsub")

KEEP = 60
MAX_ARRAY = 1000
QUEUES = {"batch": None, "long": None, "short": 60}  # the most walltime, in seconds
KINDS = [f"after{what}{of}" for what in ("", "ok", "notok", "any") for of in ("", "array")]
RESOURCES = ("walltime", "nodes", "mem", "vmem", "cput", "feature")
USAGE = """
usage: qsub [-a date_time] [-A account_string] [-b secs]
    [-c [ none | { enabled | periodic | shutdown |
    depth=<int> | dir=<path> | interval=<minutes>}... ]
    [-C directive_prefix] [-d path] [-D path]
    [-e path] [-h] [-I] [-j oe|eo|n] [-k {oe}] [-K <kill delay seconds>]\x20
    [-l resource_list] [-m n|{abe}] [-M user_list] [-N jobname] [-o path]\x20
    [-p priority] [-P proxy_user [-J <jobid]] [-q queue] [-r y|n]\x20
    [-S path] [-t number_to_submit] [-T type]  [-u user_list] [-w] path
    [-W additional_attributes] [-v variable_list] [-V ] [-x] [-X] [-z] [script]
"""
DOWN = """socket_connect_unix failed: 15137
{name}: cannot connect to server (null) (errno=15137) could not connect to trqauthd"""

command = qtools.commands(DOWN, 33)


def usage(words: str) -> Refused:
    """Refuse what cannot be read."""
    return Refused(f"[{words}]\n{USAGE}", 2)


def error(words: str, status: int) -> Refused:
    """Refuse what the server does not take."""
    return Refused(f"qsub: submit error ({words})", status)


# --- the rules ------------------------------------------------------------------------------------


class House:
    """What Torque does with jobs."""

    def step(self, state: State, job: Job, element: Element) -> Step:
        """Obey the dependencies."""
        del element
        steps = {_judge(state, after) for after in job.after}
        if Step.DROP in steps:
            return Step.DROP
        return Step.WAIT if Step.WAIT in steps else Step.START

    def environment(self, job: Job, element: Element) -> Mapping[str, str]:
        """Give what a job finds; the submitter's environment is not part of it."""
        array = {} if element.index is None else {"PBS_ARRAYID": str(element.index)}
        return {
            **job.variables,
            **array,
            "PBS_JOBID": job_id(job, element),
            "PBS_JOBNAME": job.name,
            "PBS_ENVIRONMENT": "PBS_BATCH",
            "PBS_O_WORKDIR": job.folder,
        }

    def words(self, job: Job, element: Element, script: Path) -> Sequence[str]:
        """Run the script itself: its first line says by what."""
        del job, element
        return [str(script)]

    def folder(self, job: Job) -> str:
        """Start at home."""
        del job
        return os.environ["HOME"]


def _judge(state: State, after: After) -> Step:
    """Say what one dependency lets a job do."""
    parent = state.jobs[after.job]
    whole = parent.indices is not None and after.element is None
    elements = [parent.elements[after.element]] if not whole else [*parent.elements.values()]
    if any(element.state != "ended" for element in elements):
        return Step.WAIT
    if whole != after.kind.endswith("array"):
        return Step.WAIT  # for ever, and so is what an array with a failure does not let go
    good = [exit_status(element) == 0 for element in elements]
    kind = after.kind.removesuffix("array")
    met = {"afterok": all(good), "afternotok": not any(good)}.get(kind, True)
    return Step.START if met else Step.WAIT if whole else Step.DROP


def exit_status(element: Element) -> int | None:
    """Spell how an element ended, as exit_status does."""
    if element.cause == "dropped":
        return 271
    if element.code is None:
        return None
    if element.cause:
        return {"time": -11, "memory": -10, "cancelled": 271}[element.cause]
    return 128 - element.code if element.code < 0 else element.code


def engine() -> Engine:
    """Return this user's Torque."""
    return Engine(House())


def find(state: State, word: str, unknown: str = "{name}: Unknown Job Id Error") -> Job:
    """Find the job that an id means, or is an element of, if it is not forgotten."""
    spelled = word if "." in word else f"{word}.{SERVER}"
    refused = Refused(f"{unknown} {spelled}", 153)
    job = qtools.find(state, word, refused)[0]
    if forgotten(job):
        raise refused
    return job


def forgotten(job: Job) -> bool:
    """Return whether a job ended so long ago that nothing is known of it."""
    return job.all_are("ended") and time.time() - job.last().ended > KEEP


# --- qsub -----------------------------------------------------------------------------------------


@command
def qsub(argv: list[str]) -> int:
    """Submit a script."""
    given, words = read_options(argv)
    try:
        (path,) = words
        script = Path(path).read_bytes()
    except OSError:
        told = f"qsub: script file '{path}' cannot be loaded - No such file or directory"
        raise Refused(told, 1) from None
    options = [*qtools.directives(script.decode(errors="replace"), read_options), *given]
    said = dict(options)
    name = said.get("-N", Path(path).name)
    if not re.fullmatch(r"[^\s:/]+", name):
        raise usage("qsub: illegal -N value")
    after = [after for key, value in options if key == "-W" for after in _depend(value)]
    ask = _resources(options)
    queue = said.get("-q", "batch")
    if queue not in QUEUES:
        raise error("Unknown queue MSG=requested queue not found", 172)
    most = QUEUES[queue]
    if most and ask.get("walltime", 0) > most:
        told = "cannot satisfy queue max walltime requirement"
        raise error(f"Job exceeds queue resource limits MSG={told}", 190)
    with engine().open() as state:
        job = Job(
            state.next(),
            name,
            script,
            os.getcwd(),
            qtools.variables(options),
            _indices(said["-t"]) if "-t" in said else None,
            cpus=ask.get("nodes", 1),
            memory=ask.get("mem"),
            limit=ask.get("walltime"),
            held="-h" in said,
            after=after,
            output=said.get("-o", "/dev/null"),
            facts={"queue": queue, "words": shlex.join(argv), "user": getuser()},
        )
        for one in after:
            _check(state, one)
        state.jobs[job.number] = job
    print(job_id(job))
    return 0


def read_options(argv: list[str]) -> tuple[Options, list[str]]:
    """Read the options of a command line, or of a directive."""
    try:
        return getopt.getopt(argv, "A:d:e:hj:k:l:m:M:N:o:p:q:r:S:t:W:v:V")
    except getopt.GetoptError as wrong:
        if wrong.opt == "J":
            raise usage("The -J option can only be used in conjunction with -P") from None
        raise usage("a single - is not a valid option") from None


def _indices(text: str) -> Sequence[int]:
    bad = "Bad Job Array Request"
    indices: list[int] = []
    for part in text.partition("%")[0].split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if match is None:
            raise error(bad, 235)
        indices += range(int(match[1]), int(match[2] or match[1]) + 1)
    if not indices:
        raise error("End of File", 67)  # and the server is gone
    if len(indices) > MAX_ARRAY:
        told = f"Requested array size too large, limit is {MAX_ARRAY}"
        raise error(f"{bad} MSG={told}", 235)
    return indices


def _depend(text: str) -> Iterator[After]:
    """Read the value of -W; give the dependencies in it."""
    name, _, value = text.partition("=")
    if name != "depend":
        raise usage("qsub: illegal -W value")
    for part in value.split(","):
        kind, *jobs = part.split(":")
        for job in jobs or [""]:
            match = re.fullmatch(r"(\d+)(?:\[(\d*)\])?(\.[\w.-]+)?", job)
            if kind not in KINDS or match is None:
                raise usage(f"qsub: illegal -W dependency value: '{part}'")
            yield After(kind, int(match[1]), int(match[2]) if match[2] else None)


def _check(state: State, after: After) -> None:
    """Refuse what comes after a job that is unknown, or has ended well."""
    parent = state.jobs.get(after.job)
    gone = parent is None or forgotten(parent)
    if gone or (parent and parent.all_are("ended") and _judge(state, after) is Step.START):
        raise error("Invalid Job Dependency", 208)


def _resources(options: Options) -> dict[str, int]:
    ask: dict[str, int] = {}
    for key, value in options:
        for part in value.split(",") if key == "-l" else ():
            name, _, amount = part.partition("=")
            if name not in RESOURCES:
                raise error(f"Unknown resource type  Resource_List.{name}", 189)
            if name == "nodes":
                nodes, _, ppn = amount.partition(":ppn=")
                ask["nodes"] = int(ppn.partition(":")[0] or 1)
                if int(nodes) > 1 or ask["nodes"] > CPUS:
                    told = "cannot locate feasible nodes (nodes file is empty, all systems are"
                    told += " busy, or no nodes have the requested feature)"
                    raise error(f"Job exceeds queue resource limits MSG={told}", 190)
            elif name != "feature":
                words = f"Illegal attribute or resource value for Resource_List.{name}"
                ask[name] = qtools.amount(name, amount, error(words, 168))
    return ask


# --- qdel, qrls, qselect --------------------------------------------------------------------------


@command
def qdel(argv: list[str]) -> int:
    """Delete jobs or elements."""
    here = engine()

    def delete(state: State, word: str) -> None:
        unknown = Refused(f"qdel: nonexistent job id: {word}", 153)
        job, elements = qtools.find(state, word, unknown)
        if forgotten(job):
            raise unknown
        if all(element.state == "ended" for element in elements):
            told = "Request invalid for state of job MSG=invalid state for job - COMPLETE"
            raise Refused(f"qdel: {told} {job_id(job)}", 170)
        for element in elements:
            here.cancel(element)

    return qtools.each("qdel", argv, here, delete)


@command
def qrls(argv: list[str]) -> int:
    """Let held jobs go."""

    def release(state: State, word: str) -> None:
        job = find(state, word)
        if job.all_are("ended"):
            told = "Request invalid for state of job MSG=invalid state for job - COMPLETE"
            raise Refused(f"qrls: {told} {job_id(job)}", 170)
        job.held = False

    return qtools.each("qrls", argv, engine(), release)


@command
def qselect(argv: list[str]) -> int:
    """List the ids of a user's jobs."""
    given, _ = getopt.getopt(argv, "u:")
    with engine().open() as state:
        for job in state.jobs.values():
            if job.facts["user"] == dict(given)["-u"] and not forgotten(job):
                print(job_id(job))
    return 0


# --- qstat ----------------------------------------------------------------------------------------


@command
def qstat(argv: list[str]) -> int:
    """Print jobs as XML."""
    if argv == ["--version"]:
        return refuse("Version: master\nCommit: 34ff845417cc0348dfe0a61a491e5e0f4adf6ef4", 0)
    given, words = getopt.getopt(argv, "xt")
    said = dict(given)
    if "-x" not in said:
        raise Refused("qstat: the stand-in prints XML only", 2)
    status, rows = 0, []
    with engine().open() as state:
        for word in words or [job_id(job) for job in state.jobs.values() if not forgotten(job)]:
            try:
                job = find(state, word)
            except Refused as refused:
                status = refuse(refused.words.replace("{name}", "qstat"), refused.status)
                continue
            if "-t" in said or job.indices is None:
                rows += [_row(job, element) for element in job.elements.values()]
            else:
                rows.append(_array_row(job))
    if rows:
        print(f'<?xml version="1.0"?>\n<Data>{"".join(rows)}</Data>')
    return status


def _xml(tag: str, facts: Mapping[str, object]) -> str:
    inner = "".join(
        _xml(name, value)
        if isinstance(value, Mapping)
        else f"<{name}>{escape(str(value))}</{name}>"
        for name, value in facts.items()
    )
    return f"<{tag}>{inner}</{tag}>"


def _common(job: Job) -> dict[str, object]:
    variables = {**job.variables, "PBS_O_WORKDIR": job.folder}
    depend = ",".join(
        f"{kind}:{job_id_of(number, index, kind)}" for kind, number, index in job.after
    )
    return {
        "Job_Owner": f"{job.facts['user']}@{SERVER}",
        "queue": job.facts["queue"],
        "server": SERVER,
        "ctime": int(job.submitted),
        **({"depend": depend} if depend else {}),
        "Resource_List": {"nodes": f"1:ppn={job.cpus}", "nodect": 1},
        "Variable_List": ",".join(f"{name}={value}" for name, value in variables.items()),
        "submit_args": job.facts["words"],
    }


def job_id_of(number: int, index: int | None, kind: str) -> str:
    """Spell the id of a job that another waits for."""
    bracket = f"[{index}]" if index is not None else "[]" if kind.endswith("array") else ""
    return f"{number}{bracket}.{SERVER}"


def _array_row(job: Job) -> str:
    states = {element.state for element in job.elements.values()}
    letter = "C" if states == {"ended"} else "Q" if states == {"waiting"} else "R"
    hold = "u" if job.held else "s" if job.after and letter == "Q" else "n"
    place = {"Job_Id": job_id(job), "Job_Name": job.name, "job_state": letter, "Hold_Types": hold}
    return _xml("Job", place | _common(job))


def _row(job: Job, element: Element) -> str:
    array = {} if element.index is None else {"job_array_id": element.index}
    dash = "" if element.index is None else f"-{element.index}"
    row: dict[str, object] = {"Job_Id": job_id(job, element), "Job_Name": f"{job.name}{dash}"}
    row |= _common(job) | array
    if element.state == "waiting":
        waits = bool(job.after)
        hold = ("u" if job.held else "") + ("s" if waits else "") or "n"
        return _xml("Job", row | {"job_state": "H" if hold != "n" else "Q", "Hold_Types": hold})
    if element.started:
        row |= {"start_time": int(element.started), "exec_host": f"{SERVER}/0"}
        row |= {"comment": f"Job started on {minute(element.started)}", "Hold_Types": "n"}
        row.pop("depend", None)
    if element.state == "running":
        return _xml("Job", row | {"job_state": "R"})
    code = exit_status(element)
    if code is not None:
        row["exit_status"] = code
    if element.cause == "dropped":
        row["comment"] = f"Job deleted as result of dependency on job {job.after[0].job}.{SERVER}"
    if element.started:
        wall = clock(element.ended - element.started)
        row["resources_used"] = {"mem": f"{element.memory << 10}kb", "walltime": wall}
    return _xml("Job", row | {"job_state": "C"})
