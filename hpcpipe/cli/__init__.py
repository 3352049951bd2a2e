"""The command line: one function a verb, its docstring the verb's help.

A verb's module is imported when the verb is typed, so that ``hpcpipe status`` pays for nothing it
does not use. Exit codes: 0 good; 1 and up as in `hpcpipe.errors`; 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from hpcpipe import __version__
from hpcpipe.errors import ConfigError, HpcpipeError, UsageError

if TYPE_CHECKING:
    from hpcpipe.model import Resources

# verb → module, and the line that `hpcpipe --help` prints without importing it
_VERBS = {
    "submit": ("sending", "Submit everything of a workflow that is not done, and return."),
    "run": ("sending", "Submit, show progress, and leave with 0 if all went well."),
    "plan": ("sending", "Print what would be submitted, and why the rest would not."),
    "map": ("mapping", "Run one command over many inputs, as an array."),
    "retry": ("sending", "Submit again what failed, with more of what it ran out of."),
    "status": ("looking", "Tell how a run stands, what failed and why."),
    "watch": ("looking", "Follow a run until it has ended."),
    "explain": ("looking", "Tell all that is known of one task."),
    "logs": ("looking", "Print what a task wrote."),
    "results": ("looking", "Print what a node or a task returned."),
    "cancel": ("sending", "Cancel a run, or some of its tasks."),
    "site": ("sites", "Show, write or check the site's settings."),
    "unlock": ("looking", "Break the lock of a client that is surely gone."),
    "completion": ("completing", "Print the shell's completion script."),
}


class _Verbs(click.Group):
    """A group whose verbs are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _VERBS:
            return None
        command: click.Command = getattr(import_module(f"hpcpipe.cli.{_VERBS[name][0]}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in _VERBS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _VERBS and not args[0].startswith("-"):
            from hpcpipe.errors import near

            raise click.UsageError(f"no command {args[0]!r}{near(args[0], _VERBS)}")
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Verbs,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "--version", prog_name="hpcpipe")
@click.option("--debug", is_flag=True, help="Show tracebacks of errors.")
@click.pass_context
def hpcpipe(ctx: click.Context, debug: bool) -> None:
    """Run workflows on a cluster's own scheduler, as few job arrays, with nothing left running.

    Without a command, tells where you are: which scheduler, which site, which runs.
    """
    ctx.obj = debug
    if ctx.invoked_subcommand is None:
        from hpcpipe.cli.here import here

        here()


def main(argv: list[str] | None = None) -> None:
    """Run the command line; an error hpcpipe can explain is one message, not a traceback."""
    try:
        code = hpcpipe.main(args=argv, standalone_mode=False)
    except click.ClickException as error:
        click.echo(f"hpcpipe: {error.format_message()}", err=True)
        if isinstance(error, click.UsageError) and error.ctx is not None:
            click.echo(f"See {error.ctx.command_path} --help", err=True)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:  # `hpcpipe logs … | head` is no error
        sys.stderr.close()
        sys.exit(0)
    except HpcpipeError as error:
        if "--debug" in (sys.argv if argv is None else argv):
            raise
        click.echo(f"hpcpipe: {error}", err=True)
        sys.exit(error.exit_status)
    sys.exit(code if isinstance(code, int) else 0)


def run_option(function: Any) -> Any:
    """Add ``--run``, which names the run a command is about."""
    return click.option(
        "--run",
        "run_folder",
        metavar="FOLDER",
        envvar="HPCPIPE_RUN",
        help="The run's folder, base_dir/workflow. Default: the last one submitted from here.",
    )(function)


def site_option(function: Any) -> Any:
    """Add ``--site``, which names the site."""
    return click.option(
        "--site", metavar="NAME|FILE", help="The site. Default: see hpcpipe site show."
    )(function)


def asked(resources: Mapping[str, Any]) -> Resources:
    """Read what `resource_options` brought; an amount that cannot be read is a wrong usage."""
    from hpcpipe.model import Resources

    try:
        return Resources.parse(**resources)
    except ConfigError as error:
        raise UsageError(str(error)) from error


def resource_options(function: Any) -> Any:
    """Add the resources a task may ask for."""
    for name, metavar, words in (
        ("--prefer", "WHAT", "Of the queues that fit: the soonest or the cheapest."),
        ("--software", "NAME[>=VERSION]", "Software it needs, of the site's catalogue."),
        ("--requires", "WORD", "What its queue must offer: rhel9, avx512, a100."),
        ("--pack", "N", "Tasks that share a job or element."),
        ("--throttle", "N", "Elements of an array that run at a time."),
        ("--scratch", "SIZE", "Node-local disk of a task."),
        ("--account", "NAME", "The account to charge."),
        ("--queue", "NAME", "The queue; on Slurm a partition."),
        ("--gpus", "N", "GPUs of a task."),
        ("--time", "TIME", "Time of a task: 30m, 2h30m, 1-00:00:00."),
        ("--memory", "SIZE", "Memory of a task: 500M, 2G."),
        ("--cpus", "N", "Cpus of a task."),
    ):
        kind = int if metavar == "N" else str
        listed = name in ("--requires", "--software")
        function = click.option(
            name, metavar=metavar, type=kind, help=words, multiple=listed, callback=_said
        )(function)
    return function


def _said(_: click.Context, __: click.Parameter, value: Any) -> Any:
    """Take a list that nobody said anything in as not said."""
    return None if value == () else value


def budget_option(function: Any) -> Any:
    """Add ``--over-budget``, which lets an account be charged more than its budget."""
    return click.option(
        "--over-budget", is_flag=True, help="Submit though it may cost more than the budget."
    )(function)
