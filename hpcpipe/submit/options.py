"""What a person asks of a submission, beside its workflow and its site."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpcpipe.resources import Resources


@dataclass(frozen=True)
class Options:
    """The options of one submission.

    ``resources`` override those of every node, and ``calls`` the site's limit of submit commands.
    It may cost more than the budget only if ``over_budget``, and cancels running tasks whose code
    or inputs have changed only if it is to ``replace`` them. ``notify`` is a line of sh that is run
    when the run has ended, or ``mail``, see `hpcpipe.submit.mail`; None: as before, or as the site
    has it. ``after_run`` is the folder of a run that must succeed first. ``at_once``: wait neither
    for outcomes that may be on their way, nor until a limit of jobs lets more in.
    """

    resources: Resources | None = None
    over_budget: bool = False
    replace: bool = False
    calls: int | None = None
    notify: str | None = None
    after_run: str | None = None
    at_once: bool = False


DEFAULTS = Options()
