"""A nipype interface as a task's call, as it runs on the node.

Its inputs are arguments, its result is a dict of its outputs by name. It runs in its own folder,
with the copies and links of inputs that nipype would make for a node.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from hpcpipe.graph.command import CommandFailed
from hpcpipe.worker.outcome import OWNER

os.environ.setdefault("NIPYPE_NO_ET", "1")  # else each import of nipype asks the network


@dataclass(eq=False)
class InterfaceCall:
    """An interface, to be run with further inputs; its fields determine its tasks' keys."""

    kind: type
    inputs: Mapping[str, Any]  # inputs already set; files as `Path`
    settings: Mapping[str, Any]  # other arguments of the interface's constructor

    @property
    def __name__(self) -> str:
        return self.kind.__name__.lower()

    @property
    def interface(self) -> Any:
        """The interface itself."""
        return self.__dict__["interface"]

    @classmethod
    def of(cls, interface: Any) -> Self:
        """Return the call of an interface in its current state."""
        plain = (str, int, float, bool, list, tuple, dict, type(None))
        call = cls(
            type(interface),
            {
                name: as_files(value) if must_exist(interface.inputs, name) else value
                for name, value in interface.inputs.get_traitsfree().items()
            },
            {
                n: v
                for n, v in vars(interface).items()
                if isinstance(v, plain) and n != "_etelemetry"
            },
        )
        call.__dict__["interface"] = interface  # not a field: equal ones may differ in digest
        return call

    @property
    def output_names(self) -> list[str]:
        """The names of its possible outputs."""
        return list(self.interface._outputs().copyable_trait_names())

    def __call__(self, **given: Any) -> dict[str, Any]:
        """Run in the current folder, after emptying it, and return the outputs by name."""
        for left in os.scandir():  # left by an earlier attempt
            if left.is_dir(follow_symlinks=False):
                shutil.rmtree(left)
            elif left.name != OWNER:
                os.unlink(left)
        for name, value in {**self.inputs, **given}.items():
            if name in given or must_exist(self.interface.inputs, name):
                setattr(self.interface.inputs, name, self.given(as_texts(value)))
        bring_inputs(self.interface)
        outputs = self.run().outputs
        if outputs is None:
            return {}
        found = {n: v for n, v in outputs.trait_get().items() if v is not None and _is_defined(v)}
        return {n: as_files(v) if holds_files(outputs, n) else v for n, v in found.items()}

    def given(self, value: Any) -> Any:
        """Return an input as the interface is given it, on the node."""
        return value

    def run(self) -> Any:
        """Run the interface; raise CommandFailed with the exit code of a command that failed."""
        runtime: Any = None
        run = self.interface._run_interface

        def watched(of: Any, *more: Any) -> Any:
            nonlocal runtime
            runtime = of
            return run(of, *more)

        self.interface._run_interface = watched
        try:
            result = self.interface.run()
        except Exception as error:
            self.judge(vars(runtime) if runtime else {}, error)
            raise
        self.judge(vars(runtime))
        return result

    def judge(self, runtime: Mapping[str, Any], error: Exception | None = None) -> None:
        """Raise CommandFailed if a command failed, even if nipype ignores it."""
        code = runtime.get("returncode")
        if code is not None and code not in runtime.get("success_codes", (code,)):
            lines = (runtime.get("stderr") or runtime.get("stdout") or "").splitlines()
            said = next((line for line in reversed(lines) if line.strip()), runtime["cmdline"])
            raise CommandFailed(f"exit {code}: {said.strip()}", code) from error


def bring_inputs(interface: Any) -> None:
    """Copy or link inputs into the current folder, as nipype does for inputs with copyfile."""
    from nipype.interfaces.base.specs import get_filecopy_info
    from nipype.utils.filemanip import copyfiles, ensure_list

    for info in get_filecopy_info(interface):
        files = getattr(interface.inputs, info["key"])
        if _is_defined(files) and files:
            new = copyfiles(ensure_list(files), [os.getcwd()], copy=info["copy"], create_new=True)
            setattr(interface.inputs, info["key"], new if isinstance(files, list) else new[0])


def holds_files(inputs: Any, name: str) -> bool:
    """Return whether an input or output is a file, a folder, or a list of them."""
    trait = inputs.trait(name)
    return trait is not None and bool([*_paths(trait.trait_type)])


def must_exist(inputs: Any, name: str) -> bool:
    """Return whether an input is an existing file rather than one to be created."""
    trait = inputs.trait(name)
    return trait is not None and any(kind.exists for kind in _paths(trait.trait_type))


def _paths(kind: Any) -> Iterator[Any]:
    """Yield the path types within a trait's type: of a list's items, of alternatives."""
    from nipype.interfaces.base.traits_extension import BasePath

    if isinstance(kind, BasePath):
        yield kind
    inner = getattr(kind, "inner_traits", ())
    for one in (*(inner() if callable(inner) else inner), *(getattr(kind, "handlers", None) or ())):
        yield from _paths(getattr(one, "trait_type", None) or one)


def _is_defined(value: Any) -> bool:
    from nipype.interfaces.base import isdefined

    return bool(isdefined(value))


def as_files(value: Any) -> Any:
    """Return file names as absolute paths, whose content enters keys; also within lists."""
    if isinstance(value, str | os.PathLike) and value:
        return Path(os.path.abspath(value))
    return type(value)(map(as_files, value)) if type(value) in (list, tuple) else value


def as_texts(value: Any) -> Any:
    """Return paths as text, as interfaces take them; also within lists."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return type(value)(map(as_texts, value)) if type(value) in (list, tuple) else value
