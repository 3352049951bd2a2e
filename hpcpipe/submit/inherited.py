"""The submitter's environment as a file of ``sh``, which each script of a submission reads.

Schedulers differ in what they pass by themselves; through the file every task finds the same.
``docs/environment.rst`` has the rule.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from hpcpipe.errors import ResultError
from hpcpipe.schedulers.environment import passed
from hpcpipe.store.rundir import RunDir, environment_path
from hpcpipe.submit.sums import Sums, sum_up

_TEMPORARY = ("TMPDIR", "TMP", "TEMP")
# The node's own, whatever the login shell says; and what a shell keeps for itself.
_NODES = re.compile(
    r"HOME|USER|LOGNAME|SHELL|MAIL|TERM|KRB5CCNAME|PWD|OLDPWD|SHLVL|_|PS\d|PPID|IFS|OPTIND|OPTARG"
    r"|UID|EUID|SHELLOPTS|BASHOPTS|BASH_VERSINFO"
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FUNCTION = re.compile(r"BASH_FUNC_(.+)(%%|\(\))")  # as bash exports them
_HEAD = "# Variables of the shell that hpcpipe was typed in.\n"


@dataclass(frozen=True)
class Inherited:
    """The file's content, and its name from ``.hpcpipe``, which a digest of the content is in."""

    content: bytes

    @property
    def path(self) -> str:
        """Name the file."""
        return environment_path(self.sums.sha256[:16])

    @property
    def sums(self) -> Sums:
        """Return the digests of the content, which each script compares."""
        return sum_up([self.content])


@lru_cache(maxsize=1)  # it is the same for all batches of a submission
def inherit(environment: tuple[tuple[str, str], ...]) -> Inherited:
    """Return what tasks inherit of an environment, given as pairs."""
    text = _HEAD + "\n".join(_lines(dict(environment))) + "\n"
    return Inherited(text.encode("utf-8", "surrogateescape"))


def read_inherited(rundir: RunDir, path: str) -> Inherited | None:
    """Read what an earlier run inherited; raises ResultError where it is gone or was changed."""
    if not path:
        return None
    try:
        found = Inherited((rundir.home / path).read_bytes())
    except OSError as error:
        raise ResultError(f"{error.filename}: {error.strerror}") from error
    if found.path != path:
        raise ResultError(f"{rundir.home / path}: changed since it was submitted")
    return found


def _lines(environment: Mapping[str, str]) -> Iterator[str]:
    if "LC_ALL" not in environment:
        yield "unset LC_ALL"  # a submit command has one of ours, which some schedulers pass on
    functions = []
    for name, value in sorted(passed(environment).items()):
        if _FUNCTION.fullmatch(name):
            functions.append(shlex.quote(f"{name}={value}"))
        elif _NAME.fullmatch(name) and not _NODES.fullmatch(name):
            yield f"export {name}={shlex.quote(value)}"
    for name in _TEMPORARY:
        if environment.get(name):
            word = shlex.quote(environment[name])
            yield f'[ -n "${name}" ] || [ ! -d {word} ] || export {name}={word}'
    if functions:  # sh cannot export what has such a name
        yield f'with_functions() {{ exec env {" ".join(functions)} "$@"; }}'
