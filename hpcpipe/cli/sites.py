"""``hpcpipe site``: the settings in use, where they come from, and whether the cluster agrees."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from hpcpipe.cli import completes, site_option
from hpcpipe.errors import ConfigError
from hpcpipe.views.text import show


@click.group()
def site() -> None:
    """Show, write or check the site's settings."""


@site.command("show")
@site_option
def show_site(site: str | None) -> None:
    """Print every setting and the layer that set it; the output is itself a valid site file."""
    from hpcpipe.site.load import load_site
    from hpcpipe.site.show import site_lines

    loaded = load_site(site)
    show(f"# {loaded.why}")
    for line in site_lines(loaded):
        show(line)


@site.command("list")
def list_sites() -> None:
    """List the sites that --site accepts, and their files."""
    from hpcpipe.site.file import Machine, known_sites

    for name, file in known_sites(Machine.here()).items():
        show(f"{name}\t{file}")


@site.command()
def schema() -> None:
    """Print the JSON Schema of a site file, for editors that complete and check TOML.

    Save it, and refer to it in the first line of the file: #:schema ./hpcpipe-site.json
    """
    from hpcpipe.site.show import site_schema

    click.echo(json.dumps(site_schema(), indent=1, ensure_ascii=False))


@site.command()
@click.argument("file", required=False, metavar="[FILE|-]", shell_complete=completes("file"))
@click.option(
    "--scheduler",
    metavar="NAME",
    shell_complete=completes("scheduler"),
    help="The scheduler to ask, if there are several.",
)
def init(file: str | None, scheduler: str | None) -> None:
    """Ask this cluster for its queues and limits, and write them to a site file.

    FILE defaults to ~/.config/hpcpipe/site.toml; - prints to the terminal. An existing file is not
    overwritten.
    """
    from datetime import date

    from hpcpipe.probes import find_probe, look, make_probe
    from hpcpipe.probes.write_site import save_new, write_site
    from hpcpipe.schedulers.base import run_command
    from hpcpipe.site.file import Machine

    machine = Machine.here()
    probe = make_probe(scheduler) if scheduler else find_probe(machine)
    text = write_site(look(probe, run_command), machine.host, date.today())
    if file == "-":
        click.echo(text, nl=False)
        return
    where = Path(file) if file else machine.user / "site.toml"
    save_new(where, text)
    show(f"Written: {where}")
    show("  hpcpipe site show | hpcpipe site doctor")


@site.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--no-trial", is_flag=True, help="Only ask; do not run the trial array.")
@site_option
def doctor(as_json: bool, no_trial: bool, site: str | None) -> int:
    """Compare the site file with the live cluster, and prove it by running a tiny array.

    Prints one line per finding: ok, warning or wrong, and what to do. Exits with 3 if anything is
    wrong. The array runs below the current folder, which the nodes must share.
    """
    from hpcpipe.probes.doctor import diagnose
    from hpcpipe.site.load import load_site

    findings = []
    for finding in diagnose(load_site(site), trial=not no_trial):
        findings.append(finding)
        if not as_json:
            show(f"{finding.verdict:<8} {finding.about}: {finding.said}")
            if finding.do:
                show(f"{'':8}   {finding.do}")
    if as_json:
        click.echo(json.dumps([vars(finding) for finding in findings], indent=1))
    wrong = any(finding.verdict == "wrong" for finding in findings)
    return ConfigError.exit_status if wrong else os.EX_OK
