"""The site options of Flux, and the variables of its jobs."""

# Annotations are not postponed here: cattrs would read them without what they carry.

from dataclasses import dataclass
from typing import Annotated

from hpcpipe.values import Line

VARIABLES = r"FLUX_(JOB|TASK)_\w+|FLUX_KVS_NAMESPACE"


@dataclass(frozen=True)
class Options:
    """What only Flux knows."""

    options: Annotated[tuple[Line, ...], 'More options for every job: "--requires=gpu".'] = ()
