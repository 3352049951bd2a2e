"""The night's workflow: three steps for each of $SUBJECTS subjects, some of which go wrong.

Each task notes in the file ``ran`` of the folder it was submitted in when it begins and ends.
"""

from __future__ import annotations

import os
import time

from hpcpipe import Workflow, each, task

FOLDER = os.getcwd()


def note(name: str, word: str) -> None:
    """Add a line: the task, the word, when, and the element that it is."""
    array, index = map(os.environ.get, ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"))
    job = f"{array}_{index}" if array else os.environ.get("SLURM_JOB_ID", "-")
    fd = os.open(f"{FOLDER}/ran", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, f"{name} {word} {time.time():.2f} {job}\n".encode())
    os.close(fd)


def is_first(name: str) -> bool:
    """Return whether a task begins for the first time."""
    with open(f"{FOLDER}/ran") as ran:
        return sum(line.startswith(f"{name} begin ") for line in ran) == 1


@task(cpus=1, memory="100M", time="1m", retries=3)
def first(subject: int) -> int:
    """Sleep; one in twenty needs three times the memory that it asks for."""
    note(f"first/{subject}", "begin")
    hog = b"x" * (260 << 20) if subject % 20 == 3 else b""
    time.sleep(4 if hog else 1 + subject % 5)
    note(f"first/{subject}", "end")
    return subject


@task(cpus=1, memory="110M", time="1m", retries=3)
def second(subject: int) -> int:
    """Sleep; one in thirty-three takes too long the first time."""
    note(f"second/{subject}", "begin")
    slow = subject % 33 == 7 and is_first(f"second/{subject}")
    time.sleep(300 if slow else 1 + subject % 7)
    note(f"second/{subject}", "end")
    return subject


@task(cpus=1, memory="120M", time="1m", retries=3)
def third(subject: int) -> int:
    """Sleep; one in twenty does so until it is preempted."""
    note(f"third/{subject}", "begin")
    taken = subject % 20 == 11 and is_first(f"third/{subject}")
    time.sleep(40 if taken else 1)
    note(f"third/{subject}", "end")
    return subject + 1


wf = Workflow("night", base_dir="runs")
subject = each([*range(int(os.environ["SUBJECTS"]))], axis="subject")
wf.add(third, subject=wf.add(second, subject=wf.add(first, subject=subject)))
