"""Interfaces of SPM, on the node: which MATLAB runs them, and what SPM says when it fails.

``HPCPIPE_SPM``, set by the site, names the program: ``octave FOLDER`` or ``matlab FOLDER`` with
SPM's folder, or ``standalone COMMAND…``, the command that starts an SPM compiled for the MATLAB
Runtime (``run_spm12.sh /opt/mcr/v97``). Unset, it is what nipype's own variables name, or the
``matlab`` on the path.

MATLAB is started once: nipype would start it a second time to ask for SPM's version, which is read
from SPM's ``Contents.m`` instead. Each attempt has folders of its own for what MATLAB and its
Runtime write as they start, where jobs that start together would be in each other's way.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from hpcpipe.command import CommandFailed
from hpcpipe.interface import InterfaceCall

_SITE = "export HPCPIPE_SPM='octave /opt/spm12'"
_FAILED = re.compile(
    r"^Failed\s+'(?P<job>[^']*)'\n(?P<why>(?:(?!In file|The following).+\n?)*)", re.M
)
_RAISED = re.compile(r"^MATLAB code threw an exception:\s*\n?(?P<why>.+)", re.M)
_ERROR = re.compile(r"^(?:error: |Error using |License checkout failed|Undefined function).*", re.M)
_OF_SITE = ("matlab_cmd", "paths", "use_mcr")  # inputs that the site decides
_VERSION = re.compile(r"Version\s+(\S+)\s+\((SPM\w+)\)")


@dataclass(frozen=True)
class Engine:
    """What runs SPM: a command in MATLAB's place, SPM's folder, or an SPM that brings its own."""

    command: str
    folder: str = ""
    standalone: bool = False

    @property
    def version(self) -> tuple[str, str]:
        """Read SPM's name and release in its folder; guess where there is none."""
        try:
            text = (
                Path(self.folder, "Contents.m").read_text(errors="replace") if self.folder else ""
            )
        except OSError as error:
            raise CommandFailed(f"no SPM in {self.folder}: {error.strerror}: Contents.m") from error
        found = _VERSION.search(text)
        return (found[2], found[1]) if found else ("SPM12", "7771")


def find_engine(environment: Mapping[str, str]) -> Engine:
    """Choose what runs SPM here; raises CommandFailed, saying what to set, where nothing does."""
    kind, *words = shlex.split(environment.get("HPCPIPE_SPM", "")) or [""]
    if kind == "octave" and len(words) == 1:
        return Engine(shlex.join([sys.executable, "-m", "hpcpipe.octave"]), words[0])
    if kind == "matlab" and len(words) < 2:
        return Engine("matlab -nodesktop -nosplash", "".join(words))
    if kind == "standalone" and words:
        script = [] if words[-1] == "script" else ["script"]
        return Engine(shlex.join([*words, *script]), standalone=True)
    if kind:
        raise CommandFailed(
            f"HPCPIPE_SPM={shlex.join([kind, *words])!r}: write for example {_SITE}"
        )
    if "FORCE_SPMMCR" in environment and "SPMMCRCMD" in environment:
        return Engine(environment["SPMMCRCMD"], standalone=True)
    folder = environment.get("SPM_PATH", "")
    if "MATLABCMD" in environment:
        return Engine(environment["MATLABCMD"], folder)
    if shutil.which("matlab", path=environment.get("PATH")):
        return Engine("matlab -nodesktop -nosplash", folder)
    raise CommandFailed(f"no matlab on the path, and HPCPIPE_SPM is not set; the site says {_SITE}")


def told_by(output: str) -> str:
    """Find SPM's own words for why it failed; nothing where it says of no failure."""
    if failed := _FAILED.search(output):
        why = ": ".join(line.strip() for line in failed["why"].splitlines() if line.strip())
        return f"Failed '{failed['job']}': {why}" if why else f"Failed '{failed['job']}'"
    if raised := _RAISED.search(output):
        return raised["why"].strip()
    error = _ERROR.search(output)
    return error[0].strip() if error else ""


@contextmanager
def known(engine: Engine) -> Iterator[None]:
    """Have nipype know what runs SPM, and which SPM it is, and so start no MATLAB to ask."""
    from nipype.interfaces.spm.base import Info, SPMCommand

    name, release = engine.version
    path = engine.folder or "unknown"
    facts = {"name": name, "path": path, "release": release}
    now = {
        (SPMCommand, "_matlab_cmd"): engine.command,
        (SPMCommand, "_paths"): [engine.folder] if engine.folder else None,
        (SPMCommand, "_use_mcr"): engine.standalone or None,
        (Info, "_name"): name,
        (Info, "_path"): path,
        (Info, "_version"): release,
        (Info, "getinfo"): staticmethod(lambda *_, **__: facts),
    }
    before = {(owner, what): vars(owner)[what] for owner, what in now}
    try:
        for (owner, what), value in now.items():
            setattr(owner, what, value)
        yield
    finally:
        for (owner, what), value in before.items():
            setattr(owner, what, value)


@dataclass(eq=False)
class SpmCall(InterfaceCall):
    """One interface of SPM. Its batch, ``pyscript_*.m``, stays beside what it made."""

    @classmethod
    def of(cls, interface: Any) -> Self:
        """Take an interface as it is; what nipype made of this host's SPM is of no interest."""
        call = super().of(interface)
        call.settings = {}
        return call

    def run(self) -> Any:
        """Run it as `InterfaceCall.run` does, in surroundings of this attempt's own."""
        engine = find_engine(os.environ)
        own = tempfile.mkdtemp(prefix="hpcpipe-spm-")
        for name, folder in (("MATLAB_PREFDIR", "prefs"), ("MCR_CACHE_ROOT", "mcr")):
            os.mkdir(f"{own}/{folder}")
            os.environ[name] = f"{own}/{folder}"
        inputs = self.interface.inputs.get_traitsfree()
        try:
            with known(engine):
                # Made anew, since interfaces look at SPM's version when they are made.
                more = {name: value for name, value in inputs.items() if name not in _OF_SITE}
                self.__dict__["interface"] = self.kind(**more)
                return super().run()
        finally:
            shutil.rmtree(own, ignore_errors=True)

    def judge(self, runtime: Mapping[str, Any], error: Exception | None = None) -> None:
        """Raise CommandFailed with SPM's own words, wherever it said them: it may exit with 0."""
        said = [runtime.get("stdout"), runtime.get("stderr"), str(error or "")]
        output = "\n".join(text for text in said if text)
        print(output, flush=True)
        if words := told_by(output):
            raise CommandFailed(words) from error
