"""Runs hpcpipe and kills it at its nth step: ``python killed.py N FILE WORDS...``.

A step is whatever may be seen by another process, from the taking of the run's lock on: a file is
opened for writing, written to, renamed, removed; a command is about to be started, or has just
been. With N = 0 nothing is killed, and the steps are written to FILE, one a line.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from types import FrameType
from typing import Any

AUDITED = {
    "os.chmod", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate",
    "os.utime", "subprocess.Popen",
}  # fmt: skip
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Killer:
    """Counts steps, and kills this process at one of them."""

    def __init__(self, nth: int) -> None:
        self.nth = nth
        self.steps: list[str] = []
        self.locked = False

    def step(self, name: str, about: object = "") -> None:
        """Count a step that is about to happen, or has just."""
        if self.locked:
            self.steps.append(f"{name} {about}".strip().replace("\n", " "))
            if len(self.steps) == self.nth:
                os.kill(os.getpid(), signal.SIGKILL)

    def audit(self, event: str, args: tuple[Any, ...]) -> None:
        """Hear of what Python is about to do."""
        if event == "open" and not isinstance(args[0], int) and args[2] & WRITING:
            path = os.fsdecode(args[0])
            self.step("open", path)
            if path.endswith("/.hpcpipe/lock"):
                self.locked = True
                sys.setprofile(self.profile)
        elif event in AUDITED:
            self.step(event, args[0] if event == "subprocess.Popen" else args[:2])

    def profile(self, _: FrameType, event: str, called: Any) -> None:
        """Hear of what there are no audit events of."""
        if event == "c_call" and called is os.write:
            self.step("write")
        elif event == "c_return" and called.__name__ == "fork_exec":
            self.step("has started a command")


def watch(nth: int, steps: str) -> None:
    """Kill this process at its nth step; with 0, write all steps when it ends."""
    killer = Killer(nth)
    sys.addaudithook(killer.audit)

    @atexit.register
    def write() -> None:
        sys.setprofile(None)
        killer.locked = False
        with open(steps, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.writelines(f"{step}\n" for step in killer.steps)


def main() -> None:
    """Run the command line under the killer's eyes."""
    nth, file, *words = sys.argv[1:]
    from hpcpipe.cli import main as hpcpipe

    watch(int(nth), file)
    hpcpipe(words)


if __name__ == "__main__":
    main()
