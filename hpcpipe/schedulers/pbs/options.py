"""The site options of PBS, and the variables of its jobs."""

# Annotations are not postponed here: cattrs would read them without what they carry.

from dataclasses import dataclass
from typing import Annotated

from hpcpipe.values import Line

VARIABLES = (
    r"PBS_(?!(CONF_FILE|DEFAULT|SERVER|SERVER_HOME|PRIMARY|SECONDARY|EXEC|HOME|\w+_PORT"
    r"|\w+_METHODS?)$)\w+|QSUB_\w+|NCPUS|MOAB_\w+"
)


@dataclass(frozen=True)
class Options:
    """What only PBS Professional and OpenPBS know."""

    options: Annotated[tuple[Line, ...], 'More options for every job: "-l place=free".'] = ()
    account: Annotated[Line, 'The option for the account, as far as its name: "-P ".'] = "-A "
