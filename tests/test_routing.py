"""Which queue a task goes to, and what is said about it."""

from dataclasses import replace

import pytest

from hpcpipe.errors import ConfigError
from hpcpipe.resources import Resources
from hpcpipe.site import Account, Cost, Defaults, Queue, Scratch, Site, Software, Step
from hpcpipe.site.fit import charge
from hpcpipe.site.route import route
from hpcpipe.site.software import find_software

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
        (Resources(queue="long", time=60), "long", "long: 1 min fits its 7 d limit; requested"),
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
    assert chosen.why == "site 'bare' lists no queues; the scheduler chooses"

    chosen = route(Resources(queue="long"), bare)
    assert chosen.queue == Queue(name="long")
    assert chosen.why == "long: not checked, because site 'bare' lists no queues"


# What a queue offers, and what it costs

LAB = Site(
    name="lab",
    queues=(
        Queue(
            name="cpu",
            max_time=2 * DAY,
            max_cpus=48,
            features=("rhel9", "avx512"),
            constraints={"nvme": "local_nvme", "fast-net": "ib&hdr"},
            steps=(Step(max_time=2 * DAY, cpus=24), Step(max_time=DAY, cpus=48)),
            wait=2 * HOUR,
        ),
        Queue(
            name="gpu",
            max_gpus=4,
            min_gpus=1,
            cpus_per_gpu=12,
            gpu_models={"a100": "a100", "a100-5gb": "a100_1g.5gb"},
            features=("rhel9",),
            account_suffix="_g",
            cost=Cost(rate=2, unit="gpu"),
        ),
        Queue(
            name="nodes",
            max_cpus=56,
            min_time=5 * 60,
            exclusive=True,
            cost=Cost(rate=0.5),
            features=("rhel9",),
            wait=60,
        ),
        Queue(name="spare", preemptible=True, cost=Cost(rate=0), features=("rhel9",)),
        Queue(name="big", only_asked=True, min_memory=256 * GB, features=("rhel9", "huge")),
    ),
    software={
        "fsl5": Software(name="fsl", version="5.0.11", setup=("module load fsl/5.0.11",)),
        "fsl": Software(version="6.0.7", setup=("module load biology", "module load fsl/6.0.7")),
        "spm": Software(version="12", queues=("nodes",), licences=("matlab:1",), at_once=8),
    },
    accounts={"ada": Account(budget=10, options=("--comment=ada",)), "eve": Account()},
    scratch=Scratch(option="--gres=lscratch:{gb}"),
)


@pytest.mark.parametrize(
    ("asked", "queue", "why"),
    [
        (
            Resources(requires=("AVX512", "nvme")),
            "cpu",
            "cpu: has AVX512, nvme",
        ),
        (
            Resources(requires=("a100",)),
            "gpu",
            "gpu: 1 of its 4 gpus, cpus rounded up to 12, has a100; not cpu: no a100",
        ),
        (
            Resources(cpus=40, time=30 * HOUR),
            "nodes",
            "nodes: 40 of its 56 cpus; not cpu: time 1 d 6 h > 1 d; not gpu: no gpus requested",
        ),
        (
            Resources(software=("spm12",), time=60),
            "nodes",
            "nodes: time raised to its minimum, 5 min, has spm12; not cpu: no spm 12; "
            "not gpu: no gpus requested, no spm 12",
        ),
        (
            Resources(time=HOUR, cpus=8, prefer="cheapest"),
            "cpu",
            "cpu: 1 h fits its 2 d limit, 8 of its 48 cpus, the cheapest, 8 core-hours at worst; "
            "not gpu: no gpus requested",
        ),
        (
            Resources(time=HOUR, cpus=40, prefer="cheapest"),
            "nodes",
            "nodes: 40 of its 56 cpus, the cheapest, 28 core-hours at worst; "
            "not gpu: no gpus requested",
        ),
        (Resources(prefer="soonest"), "nodes", "nodes: the soonest, usually 1 min"),
    ],
)
def test_a_queue_is_chosen_by_what_it_offers_and_costs(
    asked: Resources, queue: str, why: str
) -> None:
    chosen = route(asked, LAB)
    assert (chosen.resources.queue, chosen.why) == (queue, why)


def test_of_every_other_queue_it_is_said_why_it_is_not_taken() -> None:
    assert route(Resources(time=HOUR, prefer="soonest", requires=("rhel9",)), LAB).others == (
        "cpu: also fits, but the usual wait is 2 h, not 1 min",
        "gpu: no gpus requested",
        "big: no memory requested, at least 256 GB, only for tasks that request it by name",
        "spare: also fits, but its jobs may be preempted",
    )


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        (
            Resources(requires=("avx1024",), cpus=64),
            "no queue of site 'lab' takes 64 cpus, avx1024; nearest is 'spare': no avx1024",
        ),
        (
            Resources(requires=("huge",), memory=300 * GB),
            "no queue of site 'lab' takes 1 cpu, 300 GB, huge; nearest is 'cpu': no huge; "
            "'big' would, if requested by name",
        ),
        (
            Resources(software=("fsl>=7",)),
            "no queue of site 'lab' takes 1 cpu, fsl>=7; nearest is 'cpu': "
            "fsl>=7, but there is fsl 5.0.11, fsl 6.0.7",
        ),
        (
            Resources(software=("fls",)),
            "no queue of site 'lab' takes 1 cpu, fls; nearest is 'cpu': "
            "no software 'fls' in the site file; did you mean fsl?",
        ),
        (Resources(account="adda"), "site 'lab' has no account 'adda'; did you mean ada?"),
    ],
)
def test_an_impossible_demand_names_the_nearest_queue_and_what_it_lacks(
    asked: Resources, complaint: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        route(asked, LAB)
    assert str(refused.value) == complaint


def test_what_a_job_must_say_is_asked_for_before_it_is_submitted() -> None:
    with pytest.raises(ConfigError, match="requires every job to name its time; use --time"):
        route(
            Resources(),
            replace(LAB, mandatory=("account", "time"), defaults=Defaults(account="ada")),
        )


def test_a_route_holds_all_that_the_script_needs_in_the_schedulers_words() -> None:
    asked = Resources(
        gpus=1, requires=("a100-5gb",), software=("fsl>=6",), account="ada", scratch=1500
    )
    chosen = route(asked, LAB)
    assert (chosen.gpu_model, chosen.account) == ("a100_1g.5gb", "ada_g")
    assert chosen.resources.account == "ada"  # a retry asks for it again
    assert chosen.setup == ("module load biology", "module load fsl/6.0.7")
    assert chosen.software == ("fsl 6.0.7",)
    assert chosen.options == ("--comment=ada", "--gres=lscratch:2")
    chosen = route(Resources(software=("spm",), throttle=20), LAB)
    assert (chosen.licences, chosen.throttle) == (("matlab:1",), 8)
    chosen = route(Resources(requires=("fast-net", "nvme")), LAB)
    assert chosen.constraints == ("local_nvme", "ib&hdr")


@pytest.mark.parametrize(
    ("demand", "found"),
    [
        ("fsl", "6.0.7"),
        ("FSL", "6.0.7"),
        ("fsl==5", "5.0.11"),
        ("fsl>=5.0.9,<6", "5.0.11"),
        ("fsl>5,<=6", "6.0.7"),
        ("fsl6.0", "6.0.7"),
        ("fsl>6", None),
        ("fsl<5.0.11", None),
        ("matlab>=R2022a", "R2022b"),
        ("matlab<R2022a", None),
        ("afni", "unknown"),
        ("afni>=1", None),
    ],
)
def test_the_newest_version_within_the_bounds_is_taken(demand: str, found: str | None) -> None:
    more = {"matlab": Software(version="R2022b"), "afni": Software(setup=("x",))}
    site = replace(LAB, software={**LAB.software, **more})
    one = find_software(demand, site, "cpu")
    assert (None if isinstance(one, str) else one.software.version or "unknown") == found


def test_without_a_catalogue_software_is_taken_at_its_word() -> None:
    chosen = route(Resources(software=("fsl>=6",)), Site(name="bare"))
    assert chosen.why.endswith("; fsl>=6: not checked, because the site lists no software")


@pytest.mark.parametrize(
    ("asked", "queue", "cost"),
    [
        (Resources(cpus=4, time=HOUR), Queue(name="q"), 4),
        (Resources(cpus=4, time=HOUR), Queue(name="q", exclusive=True, cpus_per_node=56), 56),
        (Resources(gpus=2, time=HOUR), Queue(name="q", cost=Cost(rate=10, unit="gpu")), 20),
        (Resources(cpus=9, time=HOUR), Queue(name="q", cost=Cost(unit="node")), 1),
        (
            Resources(memory=9 * GB, time=HOUR),
            Queue(name="q", cost=Cost(rate=2, memory_per_core=4 * GB)),
            6,
        ),
        (Resources(time=60), Queue(name="q", cost=Cost(least=900)), 0.25),
        (Resources(), Queue(name="q", default_time=2 * HOUR, max_time=DAY), 2),
        (Resources(), Queue(name="q"), None),
    ],
)
def test_what_an_element_costs_at_worst(asked: Resources, queue: Queue, cost: float | None) -> None:
    assert charge(asked, queue) == cost


WHOLE = Queue(name="q", exclusive=True, max_cpus=48, max_memory=96 * 1024, max_gpus=4)
MODELS = replace(WHOLE, gpu_models={"a100": "a100"})


@pytest.mark.parametrize(
    ("asked", "queue", "many"),
    [
        (Resources(), WHOLE, 48),
        (Resources(cpus=5), WHOLE, 9),
        (Resources(cpus=48), WHOLE, 1),
        (Resources(memory=4096), WHOLE, 24),
        (Resources(cpus=4, memory=4096), WHOLE, 12),
        (Resources(gpus=2), WHOLE, 2),
        (Resources(gpus=1, requires=("a100",)), MODELS, 4),
        (Resources(requires=("a100",)), MODELS, 1),
        (Resources(), replace(WHOLE, max_cpus=128, cpus_multiple=64), 128),
        (Resources(memory=4096), replace(WHOLE, max_memory=None), 48),
        (Resources(), replace(WHOLE, max_cpus=None), 1),
        (Resources(), replace(WHOLE, exclusive=False), 1),
        (Resources(software=("fsl",)), WHOLE, 48),
        (Resources(software=("matlab",)), WHOLE, 1),
        (Resources(software=("spm",)), WHOLE, 1),
    ],
)
def test_so_many_tasks_have_room_on_a_machine_that_a_job_gets_whole(
    asked: Resources, queue: Queue, many: int
) -> None:
    programs = {
        "fsl": Software(),
        "matlab": Software(licences=("matlab:1",)),
        "spm": Software(at_once=9),
    }
    site = Site(queues=(queue,), software=programs)
    assert route(asked, site).room == many
    together = route(asked, site, many).resources
    assert (together.cpus or 1) <= (queue.cpus_per_node or queue.max_cpus or 1)
    assert together.share(many, 1).memory == asked.memory
