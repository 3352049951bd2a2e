"""A plugin of pytest that has nipype's own tests run their workflows by hpcpipe.

Where $REDIRECTED names a file, the tests that ran a workflow are added to it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from nipype.pipeline import plugins

from hpcpipe.nipype import Plugin

_ran: list[str] = []
_THEIRS = "multiprocessing issues"  # of nipype's own plugins; why some tests are skipped


class RedirectedPlugin(Plugin):
    """Ours, noting that it ran."""

    def run(self, *said: Any, **named: Any) -> None:
        _ran.append("")
        super().run(*said, **named)


for name in ("Linear", "MultiProc", "LegacyMultiProc"):
    setattr(plugins, f"{name}Plugin", RedirectedPlugin)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run tests that nipype skips since its own plugins have trouble with newer Pythons."""
    for item in items:
        marks = item.own_markers
        item.own_markers = [m for m in marks if _THEIRS not in m.kwargs.get("reason", "")]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Function) -> Any:
    """Note a test that ran a workflow, though it fails."""
    _ran.clear()
    try:
        return (yield)
    finally:
        if _ran and "REDIRECTED" in os.environ:
            with Path(os.environ["REDIRECTED"]).open("a") as file:
                file.write(f"{item.module.__name__}::{item.name}\n")
