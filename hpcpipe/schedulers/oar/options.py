"""The site options of OAR, and the variables of its jobs."""

# Annotations are not postponed here: cattrs would read them without what they carry.

from dataclasses import dataclass
from typing import Annotated

from hpcpipe.values import Line, Variable

VARIABLES = r"OAR_\w+"


@dataclass(frozen=True)
class Options:
    """What only OAR knows."""

    options: Annotated[tuple[Line, ...], 'More options for every job: "-t besteffort".'] = ()
    core: Annotated[Variable, "The property that a cpu is counted in."] = "core"
