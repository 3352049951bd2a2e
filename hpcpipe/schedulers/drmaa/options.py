"""The site options of DRMAA."""

# Annotations are not postponed here: cattrs would read them without what they carry.

from dataclasses import dataclass
from typing import Annotated, Literal

from hpcpipe.values import Text, one_of


@dataclass(frozen=True)
class Options:
    """The library by which jobs are submitted; that scheduler's own table counts, too."""

    dialect: Annotated[
        Literal["sge"], one_of("sge", kind="dialect"), "The scheduler behind it."
    ] = "sge"
    library: Annotated[Text, "The path of libdrmaa.so; unset, $DRMAA_LIBRARY_PATH."] = ""
