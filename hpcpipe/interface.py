"""An interface of nipype as a task's call, on the node's side.

Its inputs are arguments, its value is a dict of its outputs by name. It runs in a folder of its
own, with the copies and links of its inputs that nipype would make for a node.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from hpcpipe.command import CommandFailed

os.environ.setdefault("NIPYPE_NO_ET", "1")  # or each process that imports nipype asks the network


@dataclass(eq=False)
class InterfaceCall:
    """One interface, to be run with more inputs. Its fields are what its tasks' keys depend on."""

    kind: type
    inputs: Mapping[str, Any]  # that were set already; files as `Path`
    settings: Mapping[str, Any]  # what else an interface was made with

    @property
    def __name__(self) -> str:
        return self.kind.__name__.lower()

    @property
    def interface(self) -> Any:
        """The interface itself."""
        return self.__dict__["interface"]

    @classmethod
    def of(cls, interface: Any) -> Self:
        """Take an interface as it is now."""
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
        call.__dict__["interface"] = interface  # no field: two equal ones may be taken apart unlike
        return call

    @property
    def output_names(self) -> list[str]:
        """Name the outputs that it may have."""
        return list(self.interface._outputs().copyable_trait_names())

    def __call__(self, **given: Any) -> dict[str, Any]:
        """Run in the current folder, which is emptied first; give the outputs by name."""
        for left in os.scandir():  # of an earlier attempt, and no result of this one
            shutil.rmtree(left) if left.is_dir(follow_symlinks=False) else os.unlink(left)
        for name, value in {**self.inputs, **given}.items():
            if name in given or must_exist(self.interface.inputs, name):
                setattr(self.interface.inputs, name, as_texts(value))
        bring_inputs(self.interface)
        outputs = self.run().outputs
        if outputs is None:
            return {}
        found = {n: v for n, v in outputs.trait_get().items() if v is not None and _is_defined(v)}
        return {n: as_files(v) if holds_files(outputs, n) else v for n, v in found.items()}

    def run(self) -> Any:
        """Run the interface; where a command of it left with an exit code, say so and why."""
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
        """Raise CommandFailed where a command did not end well, though nipype may not mind."""
        code = runtime.get("returncode")
        if code is not None and code not in runtime.get("success_codes", (code,)):
            lines = (runtime.get("stderr") or runtime.get("stdout") or "").splitlines()
            said = next((line for line in reversed(lines) if line.strip()), runtime["cmdline"])
            raise CommandFailed(f"exit {code}: {said.strip()}", code) from error


def bring_inputs(interface: Any) -> None:
    """Copy or link inputs into the current folder, as nipype does for those that say so."""
    from nipype.interfaces.base.specs import get_filecopy_info
    from nipype.utils.filemanip import copyfiles, ensure_list

    for info in get_filecopy_info(interface):
        files = getattr(interface.inputs, info["key"])
        if _is_defined(files) and files:
            new = copyfiles(ensure_list(files), [os.getcwd()], copy=info["copy"], create_new=True)
            setattr(interface.inputs, info["key"], new if isinstance(files, list) else new[0])


def holds_files(inputs: Any, name: str) -> bool:
    """Tell whether an input or output is a file, a folder, or a list of them."""
    trait = inputs.trait(name)
    return trait is not None and bool([*_paths(trait.trait_type)])


def must_exist(inputs: Any, name: str) -> bool:
    """Tell whether an input is a file that is there already, not one to be made."""
    trait = inputs.trait(name)
    return trait is not None and any(kind.exists for kind in _paths(trait.trait_type))


def _paths(kind: Any) -> Iterator[Any]:
    """Find the kinds of paths within a trait's type: of a list's items, of alternatives."""
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
    """Turn names of files into absolute paths, whose content enters a key; also within lists."""
    if isinstance(value, str | os.PathLike) and value:
        return Path(os.path.abspath(value))
    return type(value)(map(as_files, value)) if type(value) in (list, tuple) else value


def as_texts(value: Any) -> Any:
    """Turn paths into text, which is what interfaces take; also within lists."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return type(value)(map(as_texts, value)) if type(value) in (list, tuple) else value
