"""Which queue a task goes to, and what is said about it."""

import pytest

from hpcpipe.errors import ConfigError
from hpcpipe.model import Resources
from hpcpipe.routing import route
from hpcpipe.site import Defaults, Queue, Site

HOUR, DAY, GB = 3600, 86400, 1024
SITE = Site(
    name="x",
    queues=(
        Queue(name="long", max_time=7 * DAY, max_memory=512 * GB, max_cpus=40),
        Queue(name="short", default=True, max_time=4 * HOUR, max_memory=4 * GB, max_cpus=10),
        Queue(name="gpu", max_time=DAY, max_memory=4 * GB, max_gpus=2),
    ),
)


@pytest.mark.parametrize(
    ("asked", "queue", "why"),
    [
        (Resources(time=2 * HOUR), "short", "short: 2 h fits its 4 h limit"),
        (Resources(time=4 * HOUR), "short", "short: 4 h fits its 4 h limit"),
        (
            Resources(time=5 * HOUR),
            "long",
            "long: 5 h fits its 7 d limit; not short: time 5 h > 4 h",
        ),
        (Resources(cpus=8), "short", "short: 8 of its 10 cpus"),
        (Resources(), "short", "short: takes 1 cpu"),
        (
            Resources(gpus=1, memory=GB),
            "gpu",
            "gpu: 1 GB fits its 4 GB limit, 1 of its 2 gpus; not short: gpus 1 > 0; "
            "not long: gpus 1 > 0",
        ),
        (Resources(queue="long", time=60), "long", "long: 1 min fits its 7 d limit; asked for"),
    ],
)
def test_a_task_goes_to_the_first_queue_that_fits_or_to_the_one_it_asks_for(
    asked: Resources, queue: str, why: str
) -> None:
    chosen = route(asked, SITE)
    assert chosen.queue is not None
    assert chosen.queue in SITE.queues
    assert (chosen.resources.queue, chosen.why) == (queue, why)
    assert chosen.queue.name == queue


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        (
            Resources(cpus=1, memory=900 * GB, time=2 * HOUR),
            "no queue of site 'x' takes 1 cpu, 900 GB, 2 h; "
            "nearest is 'long': memory 900 GB > 512 GB",
        ),
        (
            Resources(cpus=64, memory=900 * GB, gpus=1),
            "no queue of site 'x' takes 64 cpus, 900 GB, 1 gpu; "
            "nearest is 'gpu': memory 900 GB > 4 GB",
        ),
        (
            Resources(memory=512 * GB + 1),
            "no queue of site 'x' takes 1 cpu, 512 GB; "
            "nearest is 'long': memory 524289 MB > 524288 MB",
        ),
        (Resources(queue="shrot"), "site 'x' has no queue 'shrot'; did you mean short?"),
        (Resources(queue="q"), "site 'x' has no queue 'q'; known: long, short, gpu"),
        (
            Resources(queue="short", time=DAY),
            "queue 'short' of site 'x' does not take 1 cpu, 1 d: time 1 d > 4 h; 'long' would",
        ),
        (
            Resources(queue="gpu", time=8 * DAY),
            "queue 'gpu' of site 'x' does not take 1 cpu, 8 d: time 8 d > 1 d",
        ),
    ],
)
def test_what_no_queue_can_take_is_refused_with_what_is_lacking(
    asked: Resources, complaint: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        route(asked, SITE)
    assert str(refused.value) == complaint


def test_defaults_fill_in_what_is_not_asked_and_are_held_against_the_limits() -> None:
    site = Site(queues=SITE.queues, defaults=Defaults(time=5 * HOUR, memory=GB, account="lab"))
    chosen = route(Resources(memory=2 * GB), site)
    expected = Resources(time=5 * HOUR, memory=2 * GB, account="lab", queue="long")
    assert chosen.resources == expected


def test_the_queue_of_the_defaults_is_preferred_but_not_insisted_on() -> None:
    site = Site(queues=SITE.queues, defaults=Defaults(queue="gpu"))
    assert route(Resources(time=HOUR), site).resources.queue == "gpu"
    assert route(Resources(time=5 * DAY), site).resources.queue == "long"


def test_a_site_without_queues_names_none_unless_one_is_asked_for() -> None:
    bare = Site(name="bare")
    chosen = route(Resources(cpus=2), bare)
    assert (chosen.queue, chosen.resources) == (None, Resources(cpus=2))
    assert chosen.why == "site 'bare' lists no queues, so none is named"

    chosen = route(Resources(queue="long"), bare)
    assert chosen.queue == Queue(name="long")
    assert chosen.why == "long: taken at its word, since site 'bare' lists no queues"
