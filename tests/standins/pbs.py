"""OpenPBS 23.06.06 in miniature: qsub, qstat, qdel, qrls, qselect, pbsnodes.

Its array ``afterok`` lies as the real one's does: it follows the element that ended last; and its
server crashes as that does. What ``qstat`` prints has the keys, words and numbers of samples of the
real one, as far as anybody may read them. Where there is a file ``no_history`` in its folder, it
forgets what has ended.
"""

from __future__ import annotations

import getopt
import json
import os
import re
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from getpass import getuser
from pathlib import Path
from typing import Any

from standins import qtools
from standins.engine import CPUS, After, Element, Engine, Job, State, Step, Unreachable, refuse
from standins.qtools import SERVER, Options, Refused, clock, job_id, minute

COMMANDS = ("pbsnodes", "qdel", "qrls", "qselect", "qstat", "qsub")

MAX_ARRAY = 1000
NAME = 230  # characters
EXITING = 1.0  # seconds in which a job that has ended is E
COLUMNS = 79  # of text; what is longer goes on in the next line, behind a tab
# The most walltime, in seconds.
QUEUES = {"workq": None, "long": None, "short": 60, "closed": None, "disabled": None}
KINDS = ("afterok", "afternotok", "afterany", "after", "beforeok", "beforenotok", "beforeany")
OTHERS = (
    "block",
    "umask",
    "group_list",
    "max_run_subjobs",
    "run_count",
    "release_nodes_on_stageout",
)
RESOURCES = ("walltime", "select", "place", "ncpus", "mem", "ngpus", "cput", "vmem")
USAGE = """usage: qsub [-a date_time] [-A account_string] [-c interval]
\t[-C directive_prefix] [-e path] [-f ] [-h ] [-I [-X]] [-j oe|eo] [-J X-Y[:Z]]
\t[-k keep] [-l resource_list] [-m mail_options] [-M user_list]
\t[-N jobname] [-o path] [-p priority] [-P project] [-q queue] [-r y|n]
\t[-R o|e|oe] [-S path] [-u user_list] [-W otherattributes=value...]
\t[-v variable_list] [-V ] [-z] [script | -- command [arg1 ...]]
       qsub --version"""

command = qtools.commands(
    f"Connection refused\n{{name}}: cannot connect to server {SERVER} (errno=15010)", 1
)


def illegal(option: str) -> Refused:
    """Refuse an option's value, as one that cannot be read."""
    return Refused(f"{{name}}: illegal -{option} value\n{USAGE}", 2)


# --- the rules ------------------------------------------------------------------------------------


class House:
    """What OpenPBS does with jobs."""

    def step(self, state: State, job: Job, element: Element) -> Step:
        """Obey the dependencies; a queue may be closed, and a job too big for ever."""
        del element
        steps = {_judge(state, after) for after in job.after}
        if job.facts["rejected"] or Step.DROP in steps:
            return Step.DROP
        stuck = job.facts["queue"] == "closed" or job.cpus > CPUS
        return Step.WAIT if stuck or Step.WAIT in steps else Step.START

    def environment(self, job: Job, element: Element) -> Mapping[str, str]:
        """Give what a job finds; the submitter's environment is not part of it."""
        array = {} if element.index is None else {"PBS_ARRAY_INDEX": str(element.index)}
        return {
            **job.variables,
            **array,
            "PBS_JOBID": job_id(job, element),
            "PBS_JOBNAME": job.name,
            "PBS_ENVIRONMENT": "PBS_BATCH",
            "PBS_O_WORKDIR": job.folder,
            "NCPUS": str(job.cpus),
        }

    def words(self, job: Job, element: Element, script: Path) -> Sequence[str]:
        """Run the script itself: its first line says by what."""
        del job, element
        return [str(script)]

    def folder(self, job: Job) -> str:
        """Start at home."""
        del job
        return os.environ["HOME"]


def _rejects(state: State, after: After) -> bool:
    """Return whether a new job's dependency is on one that is not known, or not any more."""
    parent = state.jobs.get(after.job)
    return parent is None or (not history() and parent.all_are("ended"))


def _judge(state: State, after: After) -> Step:
    """Say what one dependency lets a job do."""
    parent = state.jobs.get(after.job)
    if parent is None or not parent.all_are("ended"):
        return Step.WAIT
    code = exit_status(parent.last())
    if after.kind == "afterok":
        return Step.START if code == 0 else Step.DROP
    if after.kind == "afternotok":
        return Step.DROP if code == 0 else Step.START
    return Step.START


def exit_status(element: Element) -> int | None:
    """Spell how an element ended, as Exit_status does."""
    if element.code is None:
        return None
    if element.cause in ("time", "memory"):
        return {"time": -29, "memory": -27}[element.cause]
    by = 256 if element.cause == "cancelled" else 128  # MoM's signal, or somebody else's
    return by - element.code if element.code < 0 else element.code


def over(job: Job) -> bool:
    """Return whether all of a job has ended, for long enough."""
    return job.all_are("ended") and not any(map(exits, job.elements.values()))


def exits(element: Element) -> bool:
    """Return whether an element is E: it has ended, and MoM has not reported that yet."""
    ran = element.state == "ended" and element.code is not None
    return ran and time.time() - element.ended < EXITING


def engine() -> Engine:
    """Return this user's OpenPBS, unless it has crashed."""
    if crashed().exists():
        raise Unreachable
    return Engine(House())


def crashed() -> Path:
    """Name the file that is there once the server has crashed."""
    return Path(os.environ["STANDIN"], "crashed")


def history() -> bool:
    """Return whether ended jobs are remembered."""
    return not Path(os.environ["STANDIN"], "no_history").exists()


# --- ids ------------------------------------------------------------------------------------------


def find(state: State, word: str) -> tuple[Job, list[Element]]:
    """Find what an id means, if it is not forgotten."""
    spelled = word if "." in word else f"{word}.{SERVER}"
    unknown = Refused(f"{{name}}: Unknown Job Id {spelled}", 153)
    job, elements = qtools.find(state, word, unknown)
    if not history() and over(job):
        raise unknown
    return job, elements


# --- qsub -----------------------------------------------------------------------------------------


@command
def qsub(argv: list[str]) -> int:
    """Submit a script."""
    given, words = read_options(argv)
    if len(words) != 1:
        raise Refused(f"{{name}}: a script, and one only\n{USAGE}", 2)
    try:
        script = Path(words[0]).read_bytes()
    except OSError:
        raise Refused("{name}: script file:: No such file or directory", 1) from None
    options = [*qtools.directives(script.decode(errors="replace"), read_options), *given]
    folder = os.getcwd()
    if re.search(r"""["'\\,\n]""", folder):
        raise Refused("{name}: cannot send environment with the job", 1)
    said = dict(options)
    ask = _resources(options)
    queue = said.get("-q", "workq")
    _check_queue(queue, ask)
    with engine().open() as state:
        job = Job(
            state.next(),
            _name(said.get("-N", Path(words[0]).name)),
            script,
            folder,
            qtools.variables(options),
            _indices(said["-J"]) if "-J" in said else None,
            cpus=ask.get("ncpus", 1),
            memory=ask.get("mem"),
            limit=ask.get("walltime"),
            held="-h" in said,
            after=[after for key, value in options if key == "-W" for after in _others(value)],
            output=said.get("-o", "/dev/null").removeprefix("localhost:"),
            facts={"queue": queue, "words": shlex.join(argv), "user": getuser()},
        )
        job.facts["rejected"] = any(_rejects(state, after) for after in job.after)
        if "-r" in said and job.indices is not None and said["-r"] == "n":
            raise Refused("{name}: Job arrays must be rerunable", 1)
        state.jobs[job.number] = job
    print(job_id(job))
    return 0


def read_options(argv: list[str]) -> tuple[Options, list[str]]:
    """Read the options of a command line, or of a directive."""
    try:
        return getopt.getopt(argv, "A:c:e:hj:J:k:l:m:M:N:o:p:P:q:r:R:S:W:v:V")
    except getopt.GetoptError as error:
        letter = error.opt if len(error.opt) == 1 else "-"
        raise Refused(f"{{name}}: invalid option -- '{letter}'\n{USAGE}", 2) from None


def _name(name: str) -> str:
    if len(name) > NAME:
        raise Refused("{name}: Job name is too long ", 2)
    if not re.fullmatch(r"[^\s:/]+", name):
        raise illegal("N")
    return name


def _indices(text: str) -> range:
    match = re.fullmatch(r"(\d+)-(\d+)(?::(\d+))?(?:%\d+)?", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise illegal("J")
    indices = range(int(match[1]), int(match[2]) + 1, int(match[3] or 1))
    if len(indices) > MAX_ARRAY:
        raise Refused("{name}: Array job exceeds server or queue size limit", 3)
    return indices


def _others(text: str) -> Iterator[After]:
    """Read the value of -W; give the dependencies in it."""
    name, _, value = text.partition("=")
    if name in OTHERS:
        return
    if name != "depend" or not value:
        raise illegal("W")
    for part in value.split(","):
        kind, *jobs = part.split(":")
        for job in jobs or [""]:
            match = re.fullmatch(r"(\d+)(\[\])?(\.[\w.-]+)?", job)
            if kind not in KINDS or match is None:
                raise illegal("W")
            yield After(kind, int(match[1]))


def _resources(options: Options) -> dict[str, int]:
    ask: dict[str, int] = {}
    for key, value in options:
        for part in value.split(",") if key == "-l" else ():
            name, _, amount = part.partition("=")
            if name not in RESOURCES:
                raise Refused(f"{{name}}: Unknown resource Resource_List.{name}", 187)
            if name != "select":
                ask |= _amount(name, amount)
                continue
            for chunk in re.sub(r"^\d+:", "", amount).split(":"):
                inner, _, amount = chunk.partition("=")
                if inner not in RESOURCES:
                    raise Refused(f"{{name}}: Unknown resource: {inner}", 187)
                ask |= _amount(inner, amount)
    return ask


def _amount(name: str, text: str) -> dict[str, int]:
    words = f"{{name}}: Illegal attribute or resource value Resource_List.{name}"
    return {name: qtools.amount(name, text, Refused(words, 166))}


def _check_queue(queue: str, ask: Mapping[str, int]) -> None:
    if queue not in QUEUES:
        raise Refused("{name}: Unknown queue", 170)
    if queue == "disabled":
        raise Refused("{name}: Queue is not enabled", 173)
    most = QUEUES[queue]
    if most and ask.get("walltime", 0) > most:
        raise Refused("{name}: Job violates queue and/or server resource limits", 188)


# --- qdel, qrls, qselect --------------------------------------------------------------------------


@command
def qdel(argv: list[str]) -> int:
    """Delete jobs or elements; an id without a record, among several, crashes the server."""
    _, words = getopt.getopt(argv, "xW:")
    here = engine()
    with here.open() as state:
        if len(words) > 1 and not all(_has_record(state, word) for word in words):
            crashed().touch()
            return 0

    def delete(state: State, word: str) -> None:
        for element in _live(state, word)[1]:
            here.cancel(element)

    return qtools.each("qdel", words, here, delete)


def _has_record(state: State, word: str) -> bool:
    """Return whether a job has a record of its own: an element only while it runs."""
    try:
        job, elements = _live(state, word)
    except Refused:
        return False
    return len(elements) == len(job.elements) or all(one.state == "running" for one in elements)


@command
def qrls(argv: list[str]) -> int:
    """Let held jobs go."""

    def release(state: State, word: str) -> None:
        _live(state, word)[0].held = False

    return qtools.each("qrls", argv, engine(), release)


def _live(state: State, word: str) -> tuple[Job, list[Element]]:
    """Find what an id means that has not ended."""
    job, elements = find(state, word)
    if over(job):
        raise Refused(f"{{name}}: Job has finished {job_id(job)}", 35)
    return job, elements


@command
def qselect(argv: list[str]) -> int:
    """List the ids of a user's jobs that have not ended."""
    given, _ = getopt.getopt(argv, "u:")
    with engine().open() as state:
        for job in state.jobs.values():
            if job.facts["user"] == dict(given)["-u"] and not over(job):
                print(job_id(job))
    return 0


# --- qstat ----------------------------------------------------------------------------------------


@command
def qstat(argv: list[str]) -> int:
    """Print jobs as text; the server and the queues as JSON."""
    if argv == ["--version"]:
        print("pbs_version = 23.06.06")
        return 0
    given, words = getopt.getopt(argv, "BQxtfF:")
    said = dict(given)
    if "-B" in said or "-Q" in said:
        with engine().open():  # there is a server
            return _print({"Server": {SERVER: _server()}} if "-B" in said else {"Queue": _queues()})
    status, rows = 0, {}
    with engine().open() as state:
        for word in words or [job_id(job) for job in state.jobs.values()]:
            try:
                if "-x" in said and not history():
                    refuse(f"qstat: PBS is not configured to maintain job history {word}", 0)
                    continue
                job, elements = find(state, word)
                if "-x" not in said and over(job):
                    if not words:
                        continue
                    told = "Job has finished, use -x or -H to obtain historical job information"
                    raise Refused(f"{{name}}: {job_id(job)} {told}", 35)
            except Refused as refused:
                status = refuse(refused.words.replace("{name}", "qstat"), refused.status)
                continue
            rows[job_id(job)] = _row(state, job)
            if "-t" in said and job.indices is not None:
                rows |= {job_id(job, one): _element_row(state, job, one) for one in elements}
    if rows and ("-F" in said or "-f" not in said):
        raise Refused("{name}: the stand-in prints jobs as whole text only", 2)
    print(spelled(rows), end="")
    return status


def spelled(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Format jobs as text, from their JSON form."""
    return "".join(f"Job Id: {job}\n{''.join(_lines(row))}\n" for job, row in rows.items())


def _lines(row: Mapping[str, Any]) -> Iterator[str]:
    for name, value in row.items():
        if name == "Variable_List":
            value = ",".join(f"{key}={text}" for key, text in value.items())
        values = value if isinstance(value, dict) else {"": value}
        for part, text in values.items():
            line = f"    {name}{'.' if part else ''}{part} = {text}"
            cut = range(0, len(line), COLUMNS)
            yield "\n\t".join(line[at : at + COLUMNS] for at in cut) + "\n"


@command
def pbsnodes(argv: list[str]) -> int:
    """Print the one host as JSON."""
    if argv != ["-a", "-F", "json"]:
        raise Refused("{name}: the stand-in prints JSON only", 2)
    has = {"host": SERVER, "mem": "24684084kb", "ncpus": CPUS, "vnode": SERVER}
    node = {
        "ntype": "PBS",
        "state": "free",
        "resources_available": has,
        "sharing": "default_shared",
    }
    with engine().open():
        return _print({"nodes": {SERVER: node}})


def _print(answer: dict[str, Any], status: int = 0) -> int:
    head = {"timestamp": int(time.time()), "pbs_version": "23.06.06", "pbs_server": SERVER}
    print(json.dumps(head | answer, indent="\t", separators=(",", ":\t")))
    return status


def _server() -> dict[str, Any]:
    remembers = {"job_history_enable": "True", "job_history_duration": "336:00:00"}
    return {
        "server_state": "Active",
        "scheduling": "True",
        "default_queue": "workq",
        "max_array_size": MAX_ARRAY,
        "license_count": "Avail_Global:1000000 Avail_Local:1000000 Used:0 High_Use:0",
        "pbs_version": "23.06.06",
        **(remembers if history() else {}),
    }


def _queues() -> dict[str, Any]:
    return {
        name: {
            "queue_type": "Execution",
            **({"resources_max": {"walltime": clock(most)}} if most else {}),
            "enabled": str(name != "disabled"),
            "started": str(name != "closed"),
        }
        for name, most in QUEUES.items()
    }


def _row(state: State, job: Job) -> dict[str, Any]:
    """Give the attributes of a job, or of an array as a whole."""
    depends = any(_judge(state, after) is not Step.START for after in job.after)
    if job.indices is None:
        (element,) = job.elements.values()
        if element.state != "waiting":
            return _common(job) | _depend(job, element) | _ran(job, element, "F")
    elif not job.all_are("waiting"):
        ended, codes = over(job), [exit_status(one) for one in job.elements.values()]
        letter = "F" if ended else "H" if job.held else "B"
        last = exit_status(job.last())
        began = f"Job Array Began at {minute(job.submitted)}"
        return _common(job) | {
            "job_state": letter,
            "stime": time.ctime(min(one.started or one.ended for one in job.elements.values())),
            "substate": (93 if any(codes) else 92) if ended else 70,
            "comment": began + (f" and {'failed' if any(codes) else 'finished'}" if ended else ""),
            "Exit_status": min(1, abs(last)) if ended and last is not None else 0,
            "array": "True",
            "Hold_Types": "u" if job.held else "n",
        }
    letter = "H" if job.held or depends else "Q"
    row = (
        _common(job) | _depend(job) | {"job_state": letter, "substate": 20 if letter == "H" else 10}
    )
    row["Hold_Types"] = ("u" if job.held else "") + ("s" if depends else "") or "n"
    if job.cpus > CPUS:
        lacks = f"ncpus (R: {job.cpus} A: {CPUS} T: {CPUS})"
        row["comment"] = f"Can Never Run: Insufficient amount of resource: {lacks}"
    elif job.facts["queue"] == "closed":
        row["comment"] = "Not Running: Queue not started."
    return row


def _element_row(state: State, job: Job, element: Element) -> dict[str, Any]:
    if element.state == "waiting":
        return _row(state, job) | {"job_state": "Q", "Hold_Types": "n", "substate": 10}
    letter = "F" if over(job) else "X"
    forgotten = not history() and element.state == "ended" and not exits(element)
    if forgotten or (element.code is None and element.state == "ended"):  # a copy of the array's
        return _row(state, job) | {"job_state": letter, "comment": "Subjob finished"}
    place = {"array_id": job_id(job), "array_index": element.index}
    return _common(job) | place | _ran(job, element, letter)


def _common(job: Job) -> dict[str, Any]:
    when = time.ctime(job.submitted)
    return {
        "Job_Name": job.name,
        "Job_Owner": f"{job.facts['user']}@{SERVER}",
        "queue": job.facts["queue"],
        "server": SERVER,
        "ctime": when,
        "Hold_Types": "n",
        "qtime": when,
        "Resource_List": {"ncpus": job.cpus, "nodect": 1, "place": "pack"},
        "Variable_List": {"PBS_O_WORKDIR": job.folder}
        | {name: int(text) if text.isdigit() else text for name, text in job.variables.items()},
        "Submit_arguments": job.facts["words"],
        "project": "_pbs_project_default",
    }


def _depend(job: Job, element: Element | None = None) -> dict[str, str]:
    """Give the dependencies, which are forgotten once a job has started."""
    if not job.after or (element is not None and element.cause != "dropped"):
        return {}
    return {
        "depend": ",".join(f"{kind}:{number}.{SERVER}@{SERVER}" for kind, number, _ in job.after)
    }


def _ran(job: Job, element: Element, letter: str) -> dict[str, Any]:
    """Give what is known of an element that runs, or has ended."""
    if element.code is None and element.state == "ended":  # it never ran
        row: dict[str, Any] = {"job_state": letter}
        return row | {"substate": 92 if element.cause == "dropped" else 91}
    place = f"({SERVER}:ncpus={job.cpus})"
    comment = f"Job run at {minute(element.started)} on {place}"
    row = {"stime": time.ctime(element.started), "exec_host": f"{SERVER}/0", "run_count": 1}
    if element.state == "running":
        return row | {"job_state": "R", "substate": 42, "comment": comment}
    code = exit_status(element)
    if exits(element):
        return row | {"job_state": "E", "substate": 50, "comment": comment, "Exit_status": code}
    how = {
        "time": "exceeded resource walltime",
        "memory": "exceeded resource mem",
        "cancelled": f"terminated by {job.facts['user']}@{SERVER}",
    }.get(element.cause, "failed" if code else "finished")
    return row | {
        "job_state": letter,
        "substate": 91 if element.cause == "cancelled" else 93 if code else 92,
        "comment": f"{comment} and {how}",
        "Exit_status": code,
        "resources_used": {
            "mem": f"{element.memory << 10}kb",
            "ncpus": 1,
            "walltime": clock(element.ended - element.started),
        },
    }
