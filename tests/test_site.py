"""Site files: found, checked, laid over one another, and shown."""

import json
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from hpcpipe.errors import ConfigError
from hpcpipe.quantities import parse_time
from hpcpipe.site import Queue, Site, keys
from hpcpipe.site.file import Machine, known_sites
from hpcpipe.site.load import load_site
from hpcpipe.site.read import read_site, site_to_dict
from hpcpipe.site.show import option_tables, site_lines, site_schema

SHIPPED = Machine.here().shipped
CLUSTER = Path(__file__).parent / "clusters" / "slurm" / "slurm.conf"

Write = Callable[[str, str], Path]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine with no settings and no scheduler."""
    environ = {"HOME": str(tmp_path / "home")}
    return Machine(environ, "login1", lambda _: None, SHIPPED, system=tmp_path / "etc")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, text: str) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    return write


def complaint(*args: Any, **options: Any) -> str:
    with pytest.raises(ConfigError) as refused:
        load_site(*args, **options)
    return str(refused.value)


# Which site


def test_each_way_of_finding_a_site_gives_way_to_the_one_before_it(
    machine: Machine, write: Write, tmp_path: Path
) -> None:
    def found(asked: str | None = None) -> tuple[str, str]:
        loaded = load_site(asked, machine=machine)
        return loaded.site.name, loaded.why.replace(str(tmp_path), "~")

    assert found() == ("local", "no scheduler found: running on this machine's processes")

    on = "qsub", "qstat"  # so it has PBS, or Torque
    machine = replace(machine, which=lambda tool: tool if tool in on else None)
    assert found()[0] == "local"
    machine = replace(machine, which=lambda tool: tool if tool in (*on, "qconf") else None)
    assert found() == ("sge", "no site file; qconf found: using sge.toml")

    machine = Machine(
        machine.environ, "login1", lambda tool: f"/bin/{tool}", SHIPPED, machine.system
    )
    why = "no site file; sbatch found: using slurm.toml"
    assert found() == ("slurm", why)

    write("etc/sites/abel.toml", 'hosts = ["node*", "LOGIN[12]"]')
    why = "this host, login1, matches 'LOGIN[12]': using ~/etc/sites/abel.toml"
    assert found() == ("abel", why)

    write("etc/site.toml", 'name = "ours"')
    assert found() == ("ours", "using ~/etc/site.toml, this machine's")

    write("home/.config/hpcpipe/site.toml", 'name = "mine"')
    assert found() == ("mine", "using ~/home/.config/hpcpipe/site.toml, your own")

    environ = {**machine.environ, "HPCPIPE_SITE": "abel"}
    machine = Machine(environ, "login1", lambda _: None, SHIPPED, machine.system)
    assert found() == ("abel", "$HPCPIPE_SITE is 'abel': using ~/etc/sites/abel.toml")

    assert found("test-slurm") == (
        "test-slurm",
        "--site is 'test-slurm': using test-slurm.toml",
    )
    write("etc/sites/narval.toml", 'detect = ["CC_CLUSTER=narval"]')
    environ = {**machine.environ, "HPCPIPE_SITE": "", "CC_CLUSTER": "narval"}
    elsewhere = Machine(environ, "node9", lambda _: None, SHIPPED, tmp_path / "etc")
    (tmp_path / "etc/site.toml").unlink()
    (tmp_path / "home/.config/hpcpipe/site.toml").unlink()
    assert load_site(machine=elsewhere).why.startswith("$CC_CLUSTER is 'narval' here: using")

    path = write("here.toml", "")
    assert found(str(path)) == ("here", "--site is '~/here.toml': using ~/here.toml")


@pytest.mark.parametrize(
    ("said", "name", "why"),
    [
        ("pbs_version = 23.06.06\n", "pbs", "no site file; qstat of pbs found: using pbs.toml"),
        ("Version: 6.1.2\n", "torque", "no site file; qstat of torque found: using torque.toml"),
        ("SGE 8.1.9\nusage: qstat", "local", "no scheduler found: running on this machine's"),
    ],
)
def test_a_qstat_is_asked_whose_it_is(machine: Machine, said: str, name: str, why: str) -> None:
    tools = {"qsub": "/bin/qsub", "qstat": "/bin/qstat"}
    asked = replace(machine, which=tools.get, says=lambda _: said)
    loaded = load_site(machine=asked)
    assert loaded.site.name == name
    assert loaded.why.startswith(why)


def test_inside_a_flux_instance_flux_comes_before_the_scheduler_that_runs_it(
    machine: Machine,
) -> None:
    inside = replace(
        machine,
        environ={**machine.environ, "FLUX_URI": "local:///x"},
        which=lambda _: "/bin/sbatch",
    )
    loaded = load_site(machine=inside)
    assert (loaded.site.name, loaded.why) == (
        "flux", "$FLUX_URI is 'local:///x' here: using flux.toml",
    )  # fmt: skip


def test_the_users_folder_of_settings_is_where_xdg_says(machine: Machine, tmp_path: Path) -> None:
    moved = Machine({"XDG_CONFIG_HOME": "/elsewhere"}, "h", machine.which, SHIPPED, machine.system)
    assert machine.user == tmp_path / "home/.config/hpcpipe"
    assert moved.user == Path("/elsewhere/hpcpipe")


def test_the_users_sites_hide_those_of_the_system_and_the_shipped(
    machine: Machine, write: Write
) -> None:
    system = write("etc/sites/slurm.toml", "")
    assert known_sites(machine)["slurm"] == system
    mine = write("home/.config/hpcpipe/sites/slurm.toml", "")
    assert known_sites(machine)["slurm"] == mine
    assert known_sites(machine)["local"] == SHIPPED / "local.toml"


def test_a_site_that_does_not_exist_is_refused_with_the_near_miss(machine: Machine) -> None:
    assert complaint("slrum", machine=machine) == (
        "--site: no site is called 'slrum'; did you mean slurm?"
    )
    assert complaint("./no.toml", machine=machine) == "no.toml: No such file or directory"


# What is wrong with it


def test_everything_wrong_in_a_file_is_told_at_once_with_its_path(
    machine: Machine, write: Write
) -> None:
    file = write(
        "bad.toml",
        """
        scheduler = "slurn"
        hosts = "login*"
        as_of = "lately"
        local = 3
        [limits]
        array_sise = 3
        calls = 0
        poll_seconds = true
        [environment]
        variables = { "A B" = "1", OMP_NUM_THREADS = 1 }
        [[queues]]
        name = "a"
        options = ["--qos=x\\nrm"]
        [[queues]]
        max_time = "soon"
        max_memory = 1.5
        counted_by = "group"
        cost.rate = -1
        max_cpus = "4"
        """,
    )
    told = complaint(str(file), machine=machine).splitlines()
    assert all(line.startswith(f"{file}: ") for line in told)
    assert {line.removeprefix(f"{file}: ").replace(": time '", ": '") for line in told} == {
        "scheduler: unknown scheduler 'slurn'; did you mean slurm?",
        "hosts: 'login*' is not a list; put it in [ ]",
        "as_of: 'lately' is not a date; write for example 2025-01-31",
        "local: 3 is not a table",
        "limits.array_sise: unknown key; did you mean array_size?",
        "limits.calls: 0 is not a whole number of at least 1",
        "limits.poll_seconds: true is not a whole number of at least 0",
        "environment.variables.A B: 'A B' is not the name of a variable",
        "environment.variables.OMP_NUM_THREADS: 1 is not text; put it in quotes",
        "queues[0].options[0]: '--qos=x\\nrm' is not one line of text",
        "queues[1].name: is missing",
        "queues[1].max_time: 'soon' is not a duration; write for example 30m or 2h30m",
        "queues[1].counted_by: 'group' is not known; known: user, account",
        "queues[1].cost.rate: -1 is not a number of at least 0",
        "queues[1].max_memory: 1.5 is not text; put it in quotes",
        "queues[1].max_cpus: '4' is not a whole number of at least 1",
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name = ", "Invalid value"),
        ("[queues]\nname = 'a'", "queues: is one table; write [[ ]]"),
        ("environment.variables = 3", "environment.variables: 3 is not a table"),
        ("qeues = []", "qeues: unknown key; did you mean queues?"),
        ("[[queues]]\nname = 'a'\n[[queues]]\nname = 'a'", "queues[1].name: a second queue named"),
        (
            "queues = [{name = 'a', default = true}, {name = 'b', default = true}]",
            "queues[1].default: another queue already is the default",
        ),
        (
            "defaults.queue = 'shrot'\nqueues = [{name = 'short'}]",
            "defaults.queue: no queue is named 'shrot'; did you mean short?",
        ),
        (
            "queues = [{name = 'a', max_cpus = 4, min_cpus = 8}]",
            "queues[0].min_cpus: is more than max_cpus, so nothing fits",
        ),
        (
            "queues = [{name = 'a', steps = [{max_time = '1h'}]}]",
            "queues[0].steps: each step needs nodes or cpus",
        ),
        (
            "queues = [{name = 'a', accounts = ['lba']}]\naccounts.lab = {}",
            "queues[0].accounts: no account is named 'lba'; did you mean lab?",
        ),
        (
            "defaults.account = 'lba'\naccounts.lab = {}",
            "defaults.account: no account is named 'lba'; did you mean lab?",
        ),
        (
            "queues = [{name = 'short'}]\nsoftware.fsl.queues = ['shrot']",
            "software.fsl.queues: no queue is named 'shrot'; did you mean short?",
        ),
        (
            "scratch.option = '--tmp={size}'",
            "scratch.option: only {gb} and {mb} may be in braces",
        ),
        ("extends = 'slrum'", "extends: no site is called 'slrum'; did you mean slurm?"),
        ("extends = './s.toml'", "extends: './s.toml' is, or extends, this very file"),
    ],
)
def test_a_file_is_named_with_what_is_wrong_in_it(
    machine: Machine, write: Write, text: str, told: str
) -> None:
    file = write("s.toml", text)
    assert complaint(str(file), machine=machine).startswith(f"{file}: {told}")


def test_two_sites_that_extend_each_other_are_refused(machine: Machine, write: Write) -> None:
    write("etc/sites/a.toml", 'extends = "b"')
    write("etc/sites/b.toml", 'extends = "a"')
    assert "b.toml: extends: 'a' is, or extends, this very file" in complaint("a", machine=machine)


def test_mistakes_of_all_layers_are_told_together(machine: Machine, write: Write) -> None:
    write("base.toml", "limits.calls = 0")
    file = write("s.toml", 'extends = "base.toml"\nlimits.calls = -1')
    told = complaint(str(file), {"command line": {"limits": {"calls": -2}}}, machine)
    assert re.findall(r"([\w ]+)(?:\.toml)?: limits\.calls: (\S+) is not", told) == [
        ("base", "0"),
        ("s", "-1"),
        ("command line", "-2"),
    ]


# What it amounts to


def test_later_layers_win_and_each_value_knows_its_layer(machine: Machine, write: Write) -> None:
    base = write(
        "base.toml",
        """
        description = "of the base only"
        scheduler = "slurm"
        limits = { array_size = 50, calls = 60 }
        environment.variables = { A = "1", B = "1" }
        queues = [{ name = "one", max_gpus = 2 }, { name = "two" }]
        """,
    )
    file = write(
        "s.toml",
        """
        extends = "base.toml"
        limits = { calls = 70, poll_seconds = 9 }
        environment.variables = { B = "2" }
        queues = [{ name = "three" }]
        """,
    )
    loaded = load_site(str(file), {"command line": {"limits": {"poll_seconds": 1}}}, machine)
    site = loaded.site
    assert (site.name, site.description, site.scheduler) == ("s", "", "slurm")
    limits = site.limits
    assert (limits.array_size, limits.calls, limits.poll_seconds) == (50, 70, 1)
    assert site.environment.variables == {"A": "1", "B": "2"}
    assert site.queues == (Queue(name="three"),)
    assert {
        "scheduler": str(base),
        "description": "built in",
        "limits.array_size": str(base),
        "limits.calls": str(file),
        "limits.poll_seconds": "command line",
        "limits.settle_seconds": "built in",
        "environment.variables.A": str(base),
        "environment.variables.B": str(file),
        "queues[0].name": str(file),
        "queues[0].max_gpus": "built in",
    }.items() <= loaded.origin.items()
    assert not any(key.startswith("queues[1]") for key in loaded.origin)


def test_a_site_may_extend_the_one_it_hides(machine: Machine, write: Write) -> None:
    write("etc/sites/slurm.toml", 'extends = "slurm"\ndefaults.account = "lab"')
    loaded = load_site("slurm", machine=machine)
    assert (loaded.site.scheduler, loaded.site.defaults.account) == ("slurm", "lab")
    assert loaded.origin["scheduler"] == "slurm.toml"


def test_templates_lie_beside_the_file_that_names_them(
    machine: Machine, write: Write, tmp_path: Path
) -> None:
    base = write("deep/base.toml", 'templates = "ours"')
    file = write("s.toml", 'extends = "deep/base.toml"')
    # A word that was mistyped must not be as good as none.
    ours = f"'{tmp_path}/deep/ours'"
    at = f"{base}: templates"
    assert complaint(str(file), machine=machine) == f"{at}: no folder {ours}"
    write("deep/our/slrum.sh.j2", "")
    assert complaint(str(file), machine=machine) == f"{at}: no folder {ours}; did you mean our?"
    (tmp_path / "deep" / "ours").mkdir()
    assert complaint(str(file), machine=machine) == f"{at}: no template (*.j2) in {ours}"
    write("deep/ours/slrum.sh.j2", "")
    hint = "did you mean slurm.sh.j2?"
    assert complaint(str(file), machine=machine) == (
        f"{at}: 'slrum.sh.j2' in {ours} replaces no template; {hint}"
    )
    write("deep/ours/slurm.sh.j2", "")
    assert load_site(str(file), machine=machine).site.templates == tmp_path / "deep/ours"


FULL = '''
name = "full"
scheduler = "slurm"
hosts = ["login[12]"]
as_of = 2025-01-31
sources = ["https://example.org/a#b"]
templates = "tpl"
defaults = { memory = "1.5G", time = "2:30:00" }
local.memory = "12G"
slurm = { options = ["--constraint=a b"], requeue = true }
[environment]
prologue = ['module load "fsl" # 6', "é\\tx"]
variables = { OMP_NUM_THREADS = "1" }
[software."fsl@6"]
name = "fsl"
version = "6.0.7"
setup = """
module load biology
module load fsl/6.0.7"""
[accounts.lab]
budget = 5000
[[queues]]
name = "a"
named = false
max_time = "7d"
options = ["--qos=long"]
steps = [{ cpus = 1, max_time = "72h" }, { cpus = 36, max_time = "48h" }]
constraints = { "x86.v3" = "v3" }
cost = { rate = 1.5, unit = "node" }
'''


@pytest.fixture
def full(machine: Machine, write: Write) -> Site:
    write("tpl/slurm.sh.j2", "")
    return load_site(str(write("full.toml", FULL)), machine=machine).site


def test_what_is_shown_reads_back_as_the_same_site(
    full: Site, machine: Machine, write: Write
) -> None:
    lines = site_lines(load_site(str(write("full.toml", FULL)), machine=machine))
    again = write("again.toml", "\n".join(lines))
    assert load_site(str(again), machine=machine).site == full


def test_each_value_is_shown_as_its_file_spells_it_with_that_file_beside_it(
    machine: Machine, write: Write
) -> None:
    file = write("s.toml", "defaults.time = '2:30:00'\nqueues = [{ name = 'a', max_time = '7d' }]")
    lines = [re.sub(" +", " ", line) for line in site_lines(load_site(str(file), None, machine))]
    assert f'defaults.time = "2:30:00" # {file}' in lines
    assert "limits.array_size = 1000 # built in" in lines
    header = lines.index("[[queues]]")
    assert lines[header + 1] == f'name = "a" # {file}'
    assert f'max_time = "7d" # {file}' in lines[header:]


def test_a_default_account_may_be_named_by_a_variable(machine: Machine, write: Write) -> None:
    file = write("s.toml", 'defaults = { account = "mine", account_from = "PROJECT" }')
    assert load_site(str(file), machine=machine).site.defaults.account == "mine"
    environ = {**machine.environ, "PROJECT": "a12"}
    named = Machine(environ, "login1", machine.which, SHIPPED, machine.system)
    assert load_site(str(file), machine=named).site.defaults.account == "a12"


def test_a_site_survives_json(full: Site) -> None:
    assert read_site(json.loads(json.dumps(site_to_dict(full)))) == full


# What is shipped, and documented


def test_the_examples_in_the_shipped_files_hold_once_uncommented(
    machine: Machine, write: Write
) -> None:
    write("templates/base.sh.j2", "")
    for name in ("local", "sge", "slurm"):
        text = (SHIPPED / f"{name}.toml").read_text()
        text = re.sub(r"^# (?=\w+ = |\[\[)", "", text, flags=re.M)
        site = load_site(str(write(f"{name}.toml", text)), machine=machine).site
        assert site.defaults.memory == 2048
        assert site.environment.variables == {"OMP_NUM_THREADS": "1"}
    assert [queue.name for queue in site.queues] == ["short", "long", "gpu"]


def test_the_shipped_test_site_says_what_the_test_cluster_is(machine: Machine) -> None:
    site = load_site("test-slurm", machine=machine).site
    conf = CLUSTER.read_text()
    # Without those whose jobs others preempt: the tests of that say so themselves.
    few = r"(?!.*(State=DOWN|PriorityTier=0))"
    up = re.findall(rf"^PartitionName=(\w+) {few}.*MaxTime=(\S+)", conf, re.M)
    up = [(name, longest) for name, _, longest in up]
    assert [(queue.name, queue.max_time) for queue in site.queues] == [
        (name, parse_time(longest)) for name, longest in up
    ]
    default = re.findall(r"^PartitionName=(\w+) .*Default=YES", conf, re.M)
    assert [queue.name for queue in site.queues if queue.default] == default
    assert f"MaxArraySize={site.limits.array_size}\n" in conf
    assert re.search(r"^NodeName=DEFAULT .*CPUs=10 .*RealMemory=4000$", conf, re.M)
    assert {(queue.max_cpus, queue.max_memory) for queue in site.queues} == {(10, 4000)}


def walked(cls: type[Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Walk all keys of the schema with their types."""
    hints = get_type_hints(cls, include_extras=True)
    for field in keys(cls):
        hint = hints[field.name]
        yield f"{path}{field.name}", hint
        for inner in (hint, *get_args(get_args(hint)[0] if get_args(hint) else ())):
            if is_dataclass(inner):
                yield from walked(inner, f"{path}{field.name}.")  # type: ignore[arg-type]


def test_the_schema_for_editors_knows_every_key_and_all_that_is_shipped() -> None:
    schema = site_schema()

    def known(schema: dict[str, Any], data: Any, where: str) -> None:
        if isinstance(data, dict):
            for key, value in data.items():
                members = schema.get("properties", {})
                inner = members.get(key) or schema.get("additionalProperties")
                assert inner, f"{where}.{key}"
                known(inner, value, f"{where}.{key}")
        elif isinstance(data, list):
            assert schema.get("type") == "array" or "anyOf" in schema, where
            for one in data:
                known(schema.get("items", {}), one, where)

    for file in sorted(SHIPPED.glob("*.toml")):
        known(schema, tomllib.loads(file.read_text()), file.stem)
    queue = schema["properties"]["queues"]["items"]
    assert queue["required"] == ["name"]
    assert queue["properties"]["counted_by"]["enum"] == ["user", "account"]
    assert schema["properties"]["limits"]["properties"]["array_size"] == {
        "description": "Elements in one array; 0 where arrays are refused.",
        "type": "integer",
        "minimum": 0,
        "default": 1000,
    }
    assert not schema["additionalProperties"]
    json.dumps(schema)


def test_every_key_is_documented_in_one_line_beside_it() -> None:
    tables = option_tables()
    options = [one for name, kind in tables.items() for one in walked(kind, f"{name}.")]
    docs = {
        key: hint.__doc__ if is_dataclass(hint) else hint.__metadata__[-1]
        for key, hint in [*walked(Site), *options]
    }
    assert {"queues.max_time", "slurm.nice"} <= docs.keys()
    assert [key for key, doc in docs.items() if not re.fullmatch(r"[A-Z].*\.", str(doc))] == []
