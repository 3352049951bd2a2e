"""The site options of LSF, and the variables of its jobs."""

# Annotations are not postponed here: cattrs would read them without what they carry.

from dataclasses import dataclass
from typing import Annotated

from hpcpipe.values import Flag, Line

VARIABLES = r"LSB_(?!(CONFDIR|SHAREDIR)$)\w+|BSUB_\w+|LS_(SUBCWD|JOBPID|EXECCWD)"


@dataclass(frozen=True)
class Options:
    """What only LSF knows."""

    options: Annotated[tuple[Line, ...], 'More options for every job: "-sla gold".'] = ()
    requeue: Annotated[Flag, "Whether a job may be started again after its node failed."] = False
    account: Annotated[Line, 'The option for the account, as far as its name: "-G ".'] = "-P "
    memory_per_slot: Annotated[Flag, "Whether memory is reserved for each slot."] = False
