"""``hpcpipe site``: what counts here, who said so, and whether the cluster agrees."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from hpcpipe.cli import site_option
from hpcpipe.errors import ConfigError


@click.group()
def site() -> None:
    """Show, write or check the site's settings."""


@site.command()
@site_option
def show(site: str | None) -> None:
    """Print every setting and the layer that set it, as a site file that reads back the same."""
    from hpcpipe.site.load import load_site
    from hpcpipe.site.show import site_lines

    loaded = load_site(site)
    click.echo(f"# {loaded.why}")
    for line in site_lines(loaded):
        click.echo(line)


@site.command("list")
def list_sites() -> None:
    """List the sites that --site can name, and their files."""
    from hpcpipe.site.file import Machine, known_sites

    for name, file in known_sites(Machine.here()).items():
        click.echo(f"{name}\t{file}")


@site.command()
def schema() -> None:
    """Print the JSON Schema of a site file, for editors that complete and check TOML.

    Save it, and name it in the file's first line: #:schema ./hpcpipe-site.json
    """
    from hpcpipe.site.show import site_schema

    click.echo(json.dumps(site_schema(), indent=1, ensure_ascii=False))


@site.command()
@click.argument("file", required=False, metavar="[FILE|-]")
@click.option("--scheduler", metavar="NAME", help="The one to ask, where there are several.")
def init(file: str | None, scheduler: str | None) -> None:
    """Ask the cluster here for its queues and limits, and write them as a site file.

    FILE is your own ~/.config/hpcpipe/site.toml if it is left out; - prints. A file that is there
    already is not overwritten.
    """
    from datetime import date

    from hpcpipe.probes import find_probe, make_probe
    from hpcpipe.schedulers.base import run_command
    from hpcpipe.site.file import Machine
    from hpcpipe.site.init import save_new, write_site

    machine = Machine.here()
    probe = make_probe(scheduler) if scheduler else find_probe(machine)
    text = write_site(probe.look(run_command), machine.host, date.today())
    if file == "-":
        click.echo(text, nl=False)
        return
    where = Path(file) if file else machine.user / "site.toml"
    save_new(where, text)
    click.echo(f"Written: {where}")
    click.echo("  hpcpipe site show | hpcpipe site doctor")


@site.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--no-trial", is_flag=True, help="Run no array; only ask.")
@site_option
def doctor(as_json: bool, no_trial: bool, site: str | None) -> int:
    """Hold the site file against the live cluster, and run one tiny array to prove it.

    A line for each thing: ok, warning or wrong, and what to do. Leaves with 3 if anything is wrong.
    The array runs below the current folder, which nodes must share.
    """
    from hpcpipe.doctor import diagnose
    from hpcpipe.site.load import load_site

    findings = []
    for finding in diagnose(load_site(site), trial=not no_trial):
        findings.append(finding)
        if not as_json:
            click.echo(f"{finding.verdict:<8} {finding.about}: {finding.said}")
            if finding.do:
                click.echo(f"{'':8}   {finding.do}")
    if as_json:
        click.echo(json.dumps([vars(finding) for finding in findings], indent=1))
    wrong = any(finding.verdict == "wrong" for finding in findings)
    return ConfigError.exit_status if wrong else os.EX_OK
