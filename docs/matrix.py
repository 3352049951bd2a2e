"""What each scheduler can do, from the adapters; and what was tried, from the contract tests."""

import json
from collections.abc import Iterator, Mapping
from importlib import import_module
from inspect import getdoc
from pathlib import Path
from typing import Any

from hpcpipe.jobs import Capabilities
from hpcpipe.schedulers import REGISTRY

RECORD = Path(__file__).with_name("contract.json")
ABLE = ("scheduler", "job arrays", "element after element", "after one element", "after a failure",
        "submitted held", "sends mail")  # fmt: skip
TRIED = ("scheduler", "tried on", "as of", "tests of the contract that passed")

Row = tuple[str, ...]


def able() -> Iterator[Row]:
    """Yield for each scheduler what it can do."""
    for _, title, of in _adapters():
        yield (
            title,
            _arrays(of),
            _pairs(of) if of.elementwise else "no",
            "yes" if of.element_dependency else "no",
            "does not start" if of.success else "starts, and exits with code 86",
            "yes" if of.hold else "no",
            "yes" if of.mail else "no",
        )


def tried() -> Iterator[Row]:
    """Yield for each scheduler what its adapter was tried on, and with which tests."""
    record = json.loads(RECORD.read_text("utf-8"))
    for name, title, _ in _adapters():
        of = record[name]
        counts = (f"{_module(module)} {_passed(went)}" for module, went in of["tests"].items())
        on = of["on"] if of["real"] else f"{of['on']}; not a real one"
        yield title, on, of["as_of"], ", ".join(counts)


def _adapters() -> Iterator[tuple[str, str, Capabilities]]:
    for name, adapter in REGISTRY.items():
        module = import_module(adapter.package)
        # A manual starts with "Grid Engine: Son of …" or "LSF (IBM Spectrum LSF, …)."
        title = (getdoc(module) or "").partition("\n")[0].partition(":")[0].partition("(")[0]
        yield name, title.strip(" ."), adapter.scheduler.capabilities


def _arrays(of: Capabilities) -> str:
    if not of.arrays:
        return "no"
    words = ["of any indices" if of.sparse else f"from {of.first_index} on, without gaps"]
    if not of.array_of_one:
        words.append("of at least two elements")
    return "; ".join(words)


def _pairs(of: Capabilities) -> str:
    words = ["yes" if of.subset else "yes, of equal arrays"]
    if of.window:
        words.append(f"only the first {of.window} that wait are considered")
    return "; ".join(words)


def _module(name: str) -> str:
    return name.removeprefix("test_")


def _passed(went: Mapping[str, Any]) -> str:
    """Return the number passed; failures are shown, although none should be recorded."""
    passed, failed = went["passed"], went["failed"]
    return f"{passed} of {passed + failed}" if failed else f"{passed}"
