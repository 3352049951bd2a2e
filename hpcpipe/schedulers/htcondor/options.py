"""The site options of HTCondor."""

# Annotations are not postponed here: cattrs would read them without what they carry.

from dataclasses import dataclass
from typing import Annotated

from hpcpipe.values import Line


@dataclass(frozen=True)
class Options:
    """What only HTCondor knows."""

    options: Annotated[
        tuple[Line, ...], 'More lines of every submit description: "getenv = PATH".'
    ] = ()
