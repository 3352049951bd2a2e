"""Run SPM interfaces on the node: choose the MATLAB that runs them, and report SPM's errors.

``HPCPIPE_SPM``, set by the site, names the program: ``octave FOLDER`` or ``matlab FOLDER`` with
SPM's folder, or ``standalone COMMAND…``, the command that starts an SPM compiled for the MATLAB
Runtime (``run_spm12.sh /opt/mcr/v97``). If unset, nipype's own variables count, or the ``matlab``
on the path.

MATLAB is started once: nipype would start it a second time to ask for SPM's version, which is read
from SPM's ``Contents.m`` instead. Each attempt has its own folders for what MATLAB and its Runtime
write on start-up, because jobs that start together would interfere. They are in the job's own
temporary folder, or in the task's, so that nothing is left on the node if the task is killed.

SPM's output is judged as soon as it ends, before nipype looks for files: a batch that failed may
have left some, and nipype ignores the exit code.
"""

from __future__ import annotations

import gzip
import os
import re
import shlex
import shutil
import stat
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from hpcpipe.errors import WorkflowError
from hpcpipe.graph.command import CommandFailed
from hpcpipe.graph.node import leaves
from hpcpipe.nipype.interface import InterfaceCall

_SITE = "export HPCPIPE_SPM='octave /opt/spm12'"
# SPM puts the time before what it reports: "28-Nov-2026 22:32:40 - Failed  'Smooth'".
_FAILED = re.compile(
    r"^(?:[\w-]+ [\d:]+ - )?Failed\s+'(?P<job>[^']*)'\n"
    r"(?P<why>(?:(?!In file|The following).+\n?)*)",
    re.M,
)
_RAISED = re.compile(r"^MATLAB code threw an exception:\s*\n?(?P<why>.+)", re.M)
_ERROR = re.compile(r"^(?:error: |Error using |License checkout failed|Undefined function).*", re.M)
_OF_SITE = ("matlab_cmd", "paths", "use_mcr")  # inputs that the site decides
_PIECE = 1 << 20  # bytes of an image that are unpacked at a time
_VERSION = re.compile(r"Version\s+(\S+)\s+\((SPM\w+)\)")


@dataclass(frozen=True)
class Engine:
    """What runs SPM: a command in place of MATLAB, with SPM's folder or a standalone SPM."""

    command: str
    folder: str = ""
    standalone: bool = False

    @property
    def version(self) -> tuple[str, str]:
        """Return SPM's name and release from its folder; a default without a folder."""
        try:
            text = (
                Path(self.folder, "Contents.m").read_text(errors="replace") if self.folder else ""
            )
        except OSError as error:
            raise CommandFailed(f"no SPM in {self.folder}: {error.strerror}: Contents.m") from error
        found = _VERSION.search(text)
        return (found[2], found[1]) if found else ("SPM12", "7771")


def find_engine(environment: Mapping[str, str]) -> Engine:
    """Return what runs SPM here; raise CommandFailed with what to set if nothing does."""
    kind, *words = shlex.split(environment.get("HPCPIPE_SPM", "")) or [""]
    if kind == "octave" and len(words) == 1:
        return Engine(shlex.join([sys.executable, "-m", "hpcpipe.nipype.octave"]), words[0])
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
    raise CommandFailed(f"no matlab on the path, and no HPCPIPE_SPM; write for example {_SITE}")


def told_by(output: str) -> str:
    """Return SPM's own message for why it failed; empty if it reports no failure."""
    if failed := _FAILED.search(output):
        why = ": ".join(line.strip() for line in failed["why"].splitlines() if line.strip())
        return f"Failed '{failed['job']}': {why}" if why else f"Failed '{failed['job']}'"
    if raised := _RAISED.search(output):
        return raised["why"].strip()
    error = _ERROR.search(output)
    return error[0].strip() if error else ""


def check_texts(where: str, values: Iterable[Any]) -> None:
    """Raise WorkflowError if SPM's batch cannot hold a text or path: nipype quotes it by ``'``."""
    for one in leaves(values):
        text = os.fspath(one) if isinstance(one, os.PathLike) else one
        if isinstance(text, str) and "'" in text.replace("''", ""):
            raise WorkflowError(
                f"{where}: SPM cannot be given {text!r}: a batch cannot hold the ' in it; rename it"
            )


@contextmanager
def known(engine: Engine) -> Iterator[None]:
    """Set which SPM nipype uses and what runs it, so that it does not start MATLAB to ask."""
    from nipype.interfaces.spm.base import Info, SPMCommand

    name, release = engine.version
    path = engine.folder or "unknown"
    facts = {"name": name, "path": path, "release": release}
    now = {
        (SPMCommand, "_matlab_cmd"): engine.command,
        (SPMCommand, "_paths"): [engine.folder] if engine.folder else None,
        (SPMCommand, "_use_mcr"): engine.standalone or None,
        (SPMCommand, "_run_interface"): _judged(engine, SPMCommand._run_interface),
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


def _judged(engine: Engine, run: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Return SPM interfaces' method that runs an engine and raises CommandFailed if SPM fails."""

    def run_and_judge(interface: Any, runtime: Any) -> Any:
        raised = ""
        try:
            with _started_by(engine, interface):
                runtime = run(interface, runtime)
        except RuntimeError as error:  # nipype's own, whose text holds SPM's whole output
            raised = str(error)
            if "\nStandard output:\n" not in raised:
                raise
        facts = vars(runtime)
        output = "\n".join(filter(None, (facts.get("stdout"), facts.get("stderr"), raised)))
        print(output, flush=True)
        code = facts.get("returncode") or 0
        if words := told_by(output):
            raise CommandFailed(words)
        if code or raised:
            code = 128 - code if code < 0 else code  # as a shell reports a signal
            lines = [line.strip() for line in output.splitlines() if line.strip()]
            raise CommandFailed(f"SPM: exit {code}: {lines[-1] if lines else 'no output'}", code)
        return runtime

    return run_and_judge


@contextmanager
def _started_by(engine: Engine, interface: Any) -> Iterator[None]:
    """Set what an interface starts while it runs; not for good, which would change its hash."""
    inputs = interface.inputs
    before = {name: getattr(inputs, name) for name in _OF_SITE}
    try:
        if not _own_command(interface):
            more = {"paths": [engine.folder]} if engine.folder else {}
            inputs.trait_setq(matlab_cmd=engine.command, use_mcr=engine.standalone, **more)
            interface._matlab_cmd_update()
        yield
    finally:
        inputs.trait_setq(**before)


@contextmanager
def in_node(interface: Any) -> Iterator[None]:
    """Run the interface of a nipype node like an `SpmCall`, if it is one of SPM's.

    The MATLAB that the workflow set for it counts before the site's.
    """
    base = sys.modules.get("nipype.interfaces.spm.base")
    engine = engine_of(interface) if base and isinstance(interface, base.SPMCommand) else None
    if engine is None:
        yield
        return
    with own_folders(), known(engine):
        yield


def _own_command(interface: Any) -> str | None:
    """Return the MATLAB that the workflow set for an interface, or for all of them."""
    said: str | None = interface.inputs.get_traitsfree().get("matlab_cmd")
    usual = interface.mlab._cmd  # nipype's own "matlab", or MatlabCommand.set_default_matlab_cmd
    return said or (usual if usual != type(interface.mlab)._cmd else None)


def engine_of(interface: Any) -> Engine | None:
    """Return what runs the SPM interface of a nipype node; None if nothing does."""
    if command := _own_command(interface):
        said = {**interface.mlab.inputs.get_traitsfree(), **interface.inputs.get_traitsfree()}
        folders = [one for one in said.get("paths", ()) if Path(one, "Contents.m").is_file()]
        return Engine(command, "".join(folders[:1]), bool(said.get("use_mcr")))
    try:
        return find_engine(os.environ)
    except CommandFailed:  # it may be cached, and need nothing; else nipype reports it
        return None


@contextmanager
def own_folders() -> Iterator[None]:
    """Set where MATLAB and its Runtime keep their files: folders of this attempt's own.

    A temporary folder that all users share is not the job's own, and nothing would empty it.
    """
    place = os.environ.get("HPCPIPE_SCRATCH") or os.environ.get("TMPDIR") or "/tmp"
    if not os.path.isdir(place) or os.stat(place).st_mode & stat.S_ISVTX:
        place = os.getcwd()
    own = tempfile.mkdtemp(prefix=".hpcpipe-spm-", dir=place)
    try:
        for name, folder in (("MATLAB_PREFDIR", "prefs"), ("MCR_CACHE_ROOT", "mcr")):
            os.mkdir(f"{own}/{folder}")
            os.environ[name] = f"{own}/{folder}"
        yield
    finally:
        shutil.rmtree(own, ignore_errors=True)


@dataclass(eq=False)
class SpmCall(InterfaceCall):
    """An SPM interface; its batch, ``pyscript_*.m``, stays beside its outputs."""

    @classmethod
    def of(cls, interface: Any) -> Self:
        """Return the call of an interface without what nipype found out about SPM on this host."""
        call = super().of(interface)
        call.settings = {}
        return call

    def given(self, value: Any) -> Any:
        """Return an input with compressed images unpacked into the current folder."""
        if isinstance(value, list | tuple):
            return type(value)(map(self.given, value))
        if not isinstance(value, str | os.PathLike) or not os.fspath(value).endswith(".nii.gz"):
            return value
        place = tempfile.mkdtemp(prefix="unpacked-", dir=os.getcwd())  # names may be the same
        path = os.path.join(place, os.path.basename(value).removesuffix(".gz"))
        try:
            with gzip.open(value) as packed, open(path, "wb") as image:
                shutil.copyfileobj(packed, image, _PIECE)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise CommandFailed(f"{value}: cannot be unpacked: {error}") from None
        return path

    def run(self) -> Any:
        """Run like `InterfaceCall.run`, in an environment of this attempt's own."""
        inputs = self.interface.inputs.get_traitsfree()
        # Some are links to an unpacked image; one that SPM writes to is a copy.
        needed = {os.path.realpath(str(one)) for one in leaves(inputs.values())}
        for place in Path.cwd().glob("unpacked-*"):
            if needed.isdisjoint(map(os.path.realpath, place.iterdir())):
                shutil.rmtree(place)
        with own_folders(), known(find_engine(os.environ)):
            # Created again, because interfaces read SPM's version on creation.
            more = {name: value for name, value in inputs.items() if name not in _OF_SITE}
            self.__dict__["interface"] = self.kind(**more)
            return super().run()
