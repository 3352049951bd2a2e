"""The site options of PBS."""

# Annotations are not postponed here: cattrs would read them without what they carry.

from dataclasses import dataclass
from typing import Annotated

from hpcpipe.values import Line


@dataclass(frozen=True)
class Options:
    """What only PBS Professional and OpenPBS know."""

    options: Annotated[tuple[Line, ...], 'More options for every job: "-l place=free".'] = ()
    account: Annotated[Line, 'The option for the account, as far as its name: "-P ".'] = "-A "
