"""The site options of the local scheduler."""

# Annotations are not postponed here: cattrs would read them without what they carry.

from dataclasses import dataclass
from typing import Annotated

from hpcpipe.values import Count, Memory


@dataclass(frozen=True)
class Options:
    """How much of this machine the local scheduler may fill."""

    cpus: Annotated[Count | None, "Cpus to use at once; unset, all there are."] = None
    memory: Annotated[Memory | None, 'Memory to use at once: "12G"; unset, all there is.'] = None
