"""A DAG of HTCondor's DAGMan as files in a run folder: written for it, and read back.

Beside a DAG ``batches/NAME.dag`` are ``NAME.dag.*``, DAGMan's own, and ours: ``NAME.jobstate``,
where DAGMan writes what becomes of each node; ``NAME.pre``, which it runs before each node;
``NAME.config``, DAGMan's settings; ``NAME.waits``, nodes of other DAGs that one waits for;
``NAME.cancelled``, nodes not to be run.

Every element is a node, ``n2_7``, for DAGMan removes all other jobs of a node when one fails. An
array has one more, ``n2``, that runs nothing and is the end of them all. DAGMan's own idea of
failure is put out by a POST script that is always content: what comes after looks for itself.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from hpcpipe.jobs import JobStatus, State
from hpcpipe.schedulers.htcondor.submit_file import Description, write_whole

# The PRE script's exit codes: go on (0), skip the node, or ask again after some seconds.
_SKIP, _DEFER, _SECONDS = 1, 2, 10
_PRE = f"""\
#!/bin/sh
# Runs before node $2 of DAG $1. Ends with {_SKIP} if that was cancelled, and with {_DEFER}
# while a node of another DAG, which it waits for, has not ended.
grep -qsx "$2" "$1.cancelled" && exit {_SKIP}
[ -e "$1.waits" ] || exit 0
while read -r node other dag; do
  [ "$node" = "$2" ] || continue
  ended=" $other (JOB_SUCCESS|JOB_FAILURE|POST_SCRIPT_TERMINATED) "
  grep -qsE "$ended" "$dag.jobstate" || grep -qsx "$other" "$dag.cancelled" ||
    grep -qs '^00[59] ' "$dag.dag.dagman.log" || exit {_DEFER}  # that DAGMan ended or was removed
done <"$1.waits"
exit 0
"""
# Of what schedd refuses; by default six, a minute for each element.
_CONFIG = "DAGMAN_MAX_SUBMIT_ATTEMPTS = 2\n"
_TOKEN = "# batch "
_ENDED = ("JOB_SUCCESS", "JOB_FAILURE", "PRE_SCRIPT_FAILURE", "POST_SCRIPT_TERMINATED")


class Wait(NamedTuple):
    """What a batch waits for: a node, or of an array each element for that of the same index."""

    dag: Dag
    node: str
    each: bool = False


class Events(NamedTuple):
    """Nodes that were submitted, and nodes that are over."""

    submitted: Collection[str]
    ended: Collection[str]


@dataclass(frozen=True)
class Dag:
    """A DAG by its run folder, and its name there: ``batches/NAME``."""

    folder: Path
    name: str

    def begin(self) -> None:
        """Write down a DAG without nodes."""
        self._write("pre", _PRE)
        self._write("config", _CONFIG)
        ask = f"/bin/sh {self.name}.pre {self.name} $JOB"
        self._write("dag", "\n".join((
            f"CONFIG {self.name}.config",
            f"JOBSTATE_LOG {self.name}.jobstate",
            f"SCRIPT DEFER {_DEFER} {_SECONDS} PRE ALL_NODES {ask}",
            f"PRE_SKIP ALL_NODES {_SKIP}",
            "SCRIPT POST ALL_NODES /bin/true",
            "",
        )))  # fmt: skip

    def add(self, description: Description, waits: Sequence[Wait], token: str) -> str:
        """Write down a batch's nodes, and name it."""
        path, indices, throttle = description
        text = self.read("dag")
        node = f"n{text.count(_TOKEN)}"
        elements = [node] if indices is None else [f"{node}_{index}" for index in indices]
        lines = [f"JOB {element} {path}" for element in elements]
        if throttle:
            lines += [f"CATEGORY {element} {node}" for element in elements]
            lines.append(f"MAXJOBS {node} {throttle}")
        if indices is not None:
            lines.append(f"JOB {node} {path} NOOP")
            lines.append(f"PARENT {' '.join(elements)} CHILD {node}")
        elsewhere = []
        for wait in waits:
            pairs = [(wait.node, elements)]
            if wait.each:
                pairs = [(wait.node + one.removeprefix(node), [one]) for one in elements]
            for parent, children in pairs:
                if wait.dag == self:
                    lines.append(f"PARENT {parent} CHILD {' '.join(children)}")
                else:
                    where = wait.dag.name if wait.dag.folder == self.folder else wait.dag.stem
                    elsewhere += [f"{child} {parent} {where}" for child in children]
        if elsewhere:
            self._write("waits", self.read("waits") + "".join(f"{line}\n" for line in elsewhere))
        self._write("dag", "\n".join((text.rstrip("\n"), *lines, f"{_TOKEN}{node} {token}", "")))
        return node

    def drop(self, elements: Iterable[str]) -> None:
        """Keep nodes that have not been submitted from ever being so."""
        dropped = dict.fromkeys((*self.read("cancelled").split(), *elements))
        self._write("cancelled", "".join(f"{one}\n" for one in dropped))

    @property
    def stem(self) -> str:
        """Its files' path, as far as the last dot."""
        return str(self.folder / self.name)

    def read(self, suffix: str) -> str:
        """Read one of its files; empty where that is missing."""
        try:
            return Path(f"{self.stem}.{suffix}").read_text("utf-8", "surrogateescape")
        except OSError:
            return ""

    def _write(self, suffix: str, text: str) -> None:
        write_whole(Path(f"{self.stem}.{suffix}"), text)

    @cached_property
    def tokens(self) -> Mapping[str, str]:
        """Its batches by the tokens they were submitted with."""
        found = re.findall(rf"^{_TOKEN}(\S+) (.*)$", self.read("dag"), re.M)
        return {token: node for node, token in found}

    @cached_property
    def elements(self) -> Mapping[str, None]:
        """The nodes that run something, in order."""
        return dict.fromkeys(re.findall(r"^JOB (\S+) \S+$", self.read("dag"), re.M))

    @cached_property
    def waiting(self) -> Collection[str]:
        """The nodes that wait for others."""
        lines = re.findall(r"^PARENT .* CHILD (.*)$", self.read("dag"), re.M)
        here = {node for line in lines for node in line.split()}
        return here | {line.partition(" ")[0] for line in self.read("waits").splitlines()}

    def events(self) -> Events:
        """Read what became of its nodes so far."""
        submitted, ended = set(), set(self.read("cancelled").split())
        for line in self.read("jobstate").splitlines():
            _, node, event, *_ = [*line.split(), "", ""]
            if event == "SUBMIT":
                submitted.add(node)
            elif event in _ENDED:
                ended.add(node)
        return Events(submitted, ended)

    def refused(self) -> Mapping[str, str]:
        """Return what schedd said of the nodes that it did not take."""
        text = self.read("jobstate")
        nodes = {*re.findall(r"^\d+ (\S+) SUBMIT_FAILURE ", text, re.M)}
        ended = nodes & {*self.events().ended} - {*self.events().submitted}
        said = self.read("dag.dagman.out") if ended else ""
        # "SCHEDD:2:…" where DAGMan submits by itself, and else in the words of condor_submit.
        words = dict(re.findall(r"Failed to submit job (\S+): (?:\w+:\d+:)?(.*)", said))
        other = re.findall(r"From submit: (ERROR.*)", said)
        default = other[-1] if other else f"schedd refused it: {self.name}.dag.dagman.out"
        return {node: words.get(node, default) for node in ended}

    def left(self) -> Iterator[tuple[str, bool]]:
        """Yield the elements that are not over, and whether each has begun."""
        events = self.events()
        for element in self.elements:
            if element not in events.ended:
                yield element, element in events.submitted

    def statuses(self, whole: JobStatus) -> Iterator[tuple[str, JobStatus]]:
        """Yield the states of elements that are not in the queue, by that of DAGMan's own job."""
        for element, begun in self.left():
            waits = whole.state is State.HELD and element in self.waiting
            if waits or (whole.state is State.RUNNING and not begun):
                yield element, JobStatus(State.QUEUED, "UNREADY")
            else:
                yield element, whole  # one that has begun is about to be in the queue, or left it
