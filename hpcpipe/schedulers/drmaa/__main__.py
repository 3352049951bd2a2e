"""Submits one script through DRMAA, in a process of its own."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path


def native(script: str, flags: Sequence[str]) -> tuple[str, range]:
    """Return the flags as one line, and the indices of a script's array.

    DRMAA takes the indices and the folder by other ways. By ``-b n`` it copies the script at
    submission, as ``qsub`` does, and reads its directives.
    """
    array = re.search(r"^#\$ -t (\d+)-(\d+)$", script, re.M)
    indices = range(int(array[1]), int(array[2]) + 1) if array else range(0)
    quoted = [f'"{flag}"' if " " in flag else flag for flag in flags]
    return " ".join(["-b n", *quoted]), indices


def main() -> None:
    """Submit the script that is named first, with the flags that follow, and print the id."""
    path, *flags = sys.argv[1:]
    try:
        import drmaa
    except ImportError:
        sys.exit("No module named 'drmaa'. Type: pip install 'hpcpipe[drmaa]'")
    except (OSError, RuntimeError) as error:  # of the library
        sys.exit(f"{error}\nThe site's [drmaa] library, or $DRMAA_LIBRARY_PATH, says where it is.")
    line, indices = native(Path(path).read_text("utf-8", "surrogateescape"), flags)
    try:
        with drmaa.Session() as session:
            template = session.createJobTemplate()
            template.remoteCommand = os.path.abspath(path)
            template.workingDirectory = os.getcwd()
            template.nativeSpecification = line
            if indices:
                jobs = session.runBulkJobs(template, indices[0], indices[-1], 1)
                print(jobs[0].partition(".")[0])
            else:
                print(session.runJob(template))
    except Exception as error:  # not all of them are DrmaaExceptions
        sys.exit(re.sub(r"^code \d+: ", "", str(error)))


if __name__ == "__main__":
    main()
