"""The site options of ipyparallel."""

# Annotations are not postponed here: cattrs would read them without what they carry.

from dataclasses import dataclass
from typing import Annotated

from hpcpipe.values import Name, Text


@dataclass(frozen=True)
class Options:
    """Which of the running IPython clusters is meant; unset, the default one."""

    profile: Annotated[Name | None, "The IPython profile that it was started with."] = None
    cluster_id: Annotated[Name | None, "Its id, where a profile has several."] = None
    connection_file: Annotated[Text | None, "Its ipcontroller-client.json, wherever that is."] = (
        None
    )
