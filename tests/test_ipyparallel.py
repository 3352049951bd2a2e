"""How the ipyparallel adapter spells ids; all else of it needs a cluster (tests/contract)."""

from __future__ import annotations

import pytest

from hpcpipe.errors import SchedulerUnavailable
from hpcpipe.schedulers.ipyparallel import Ipyparallel

STEM = "0764c87e-cc65b9efd72c7782a5c667c3_436"


def test_an_element_is_the_message_of_its_place_in_the_array() -> None:
    spell = Ipyparallel().element
    assert spell(f"{STEM}_3", None) == f"{STEM}_3"
    assert [spell(f"{STEM}_3[1,4-6]", index) for index in (1, 4, 6)] == [
        f"{STEM}_3",
        f"{STEM}_4",
        f"{STEM}_6",
    ]


def test_a_connection_file_that_is_not_there_is_named() -> None:
    with pytest.raises(SchedulerUnavailable, match=r"nowhere\.json(.|\n)*`ipcluster start`"):
        Ipyparallel(connection_file="/nowhere.json").find(["t"])
