"""``hpcpipe site``: what counts here, and who said so."""

from __future__ import annotations

import click

from hpcpipe.cli import site_option


@click.group()
def site() -> None:
    """Show the site's settings, and where each comes from."""


@site.command()
@site_option
def show(site: str | None) -> None:
    """Print every setting and the layer that set it, as a site file that reads back the same."""
    from hpcpipe.siteload import load_site
    from hpcpipe.siteshow import site_lines

    loaded = load_site(site)
    click.echo(f"# {loaded.why}")
    for line in site_lines(loaded):
        click.echo(line)


@site.command("list")
def list_sites() -> None:
    """List the sites that --site can name, and their files."""
    from hpcpipe.sitefile import Machine, known_sites

    for name, file in known_sites(Machine.here()).items():
        click.echo(f"{name}\t{file}")


@site.command()
def schema() -> None:
    """Print the JSON Schema of a site file, for editors that complete and check TOML.

    Save it, and name it in the file's first line: #:schema ./hpcpipe-site.json
    """
    import json

    from hpcpipe.siteshow import site_schema

    click.echo(json.dumps(site_schema(), indent=1, ensure_ascii=False))
