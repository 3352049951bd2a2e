"""``hpcpipe completion``: the shell's completion script."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the shell's completion script.

    For bash, in ~/.bashrc: eval "$(hpcpipe completion bash)"
    """
    from hpcpipe.cli import hpcpipe

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(hpcpipe, {}, "hpcpipe", "_HPCPIPE_COMPLETE").source())
