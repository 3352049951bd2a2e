"""The site options of HTCondor, and the variables of its jobs."""

# Annotations are not postponed here: cattrs would read them without what they carry.

from dataclasses import dataclass
from typing import Annotated

from hpcpipe.values import Line

VARIABLES = (
    r"_(?i:CONDOR)_(JOB|MACHINE|SCRATCH|SLOT|ANCESTOR|CHIRP|CREDS|WRAPPER|EXECUT)\w*"
    r"|_(?i:CONDOR_((JOB_)?DEFAULT|SUBMIT|APPEND)_\w+)"
)


@dataclass(frozen=True)
class Options:
    """What only HTCondor knows."""

    options: Annotated[
        tuple[Line, ...], 'More lines of every submit description: "getenv = PATH".'
    ] = ()
