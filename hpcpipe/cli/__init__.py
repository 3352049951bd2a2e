"""The command line: one function per command; its docstring is the command's help.

A command's module is imported only when the command is called, which keeps ``hpcpipe status``
quick. Exit codes: 0 success; 1 and up as in `hpcpipe.errors`; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib import import_module
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any

import click

from hpcpipe import __version__
from hpcpipe.errors import ConfigError, HpcpipeError, UsageError
from hpcpipe.views.text import does_something, show

if TYPE_CHECKING:
    from hpcpipe.resources import Resources

# command → its module, and its line in `hpcpipe --help`, which imports no module
_VERBS = {
    "submit": ("sending", "Submit the tasks of a workflow that still need to run, and return."),
    "run": ("sending", "Submit, show progress, and exit with 0 if all tasks succeed."),
    "plan": ("sending", "Show what would be submitted, and why the rest would not."),
    "map": ("mapping", "Run one command over many inputs, as an array."),
    "retry": ("sending", "Rerun what failed, with more of what it ran out of."),
    "status": ("looking", "Show the state of a run, what failed and why."),
    "watch": ("looking", "Follow a run until it has finished."),
    "runs": ("looking", "List the runs that are known here, and how each stands."),
    "explain": ("looking", "Show all that is known about one task."),
    "logs": ("looking", "Print the output of a task."),
    "results": ("looking", "Print the return values of a node or a task."),
    "cancel": ("sending", "Cancel a run, or some of its tasks."),
    "clean": ("cleaning", "Delete what earlier runs left and nothing uses any more."),
    "site": ("sites", "Show, write or check the site's settings."),
    "unlock": ("looking", "Break the lock of a client that no longer runs."),
    "completion": ("completing", "Print the shell's completion script."),
}


_DO_SOMETHING = ("submit", "run", "map", "retry", "cancel", "clean", "unlock")


class _Verbs(click.Group):
    """A group that imports a command when it is called."""

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

    Without a command, shows the scheduler and site in use here and the state of the last run.
    """
    ctx.obj = debug
    if ctx.invoked_subcommand in _DO_SOMETHING:
        does_something.append(ctx.invoked_subcommand)
    if ctx.invoked_subcommand is None:
        from hpcpipe.cli.here import here

        here()


def _open_standard_streams() -> None:
    """Open what the shell has closed (``>&-``), or the next file opened would take its number."""
    for name, mode in {"stdin": "r", "stdout": "w", "stderr": "w"}.items():
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  open until the end


def main(argv: list[str] | None = None) -> None:
    """Run the command line; print an error that hpcpipe raised as a message, not a traceback."""
    _open_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # else it is a test's
            stream.reconfigure(errors="backslashreplace")
    try:
        code = hpcpipe.main(args=argv, prog_name="hpcpipe", standalone_mode=False)
    except click.ClickException as error:
        show(f"hpcpipe: {error.format_message()}", err=True)
        if isinstance(error, click.UsageError) and error.ctx is not None:
            show(f"See {error.ctx.command_path} --help", err=True)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except HpcpipeError as error:
        if "--debug" in (sys.argv if argv is None else argv):
            raise
        show(f"hpcpipe: {error}", err=True)
        sys.exit(error.exit_status)
    except OSError as error:  # a file or folder that is not as it should be, or a full disk
        if "--debug" in (sys.argv if argv is None else argv):
            raise
        where = f"{error.filename}: " if error.filename else ""
        show(f"hpcpipe: {where}{error.strerror or error} (hpcpipe --debug … shows more)", err=True)
        from hpcpipe.worker.outcome import FULL

        if error.errno in FULL:
            show("Free some space, then type the same command again: nothing is lost.", err=True)
        sys.exit(HpcpipeError.exit_status)
    sys.exit(code if isinstance(code, int) else 0)


def completes(kind: str) -> Any:
    """Return a function that completes a word on the shell's command line; see `offered`."""

    def complete(ctx: click.Context, _: click.Parameter, start: str) -> Any:
        from hpcpipe.cli.completing import offered

        return offered(kind, ctx.params, start)

    return complete


def run_option(function: Any) -> Any:
    """Add ``--run``, which names the run to act on."""
    return click.option(
        "--run",
        "run_folder",
        metavar="FOLDER",
        envvar="HPCPIPE_RUN",
        shell_complete=completes("run"),
        help="The run's folder, base_dir/workflow. Default: the last run submitted from here.",
    )(function)


def site_option(function: Any) -> Any:
    """Add ``--site``, which names the site."""
    return click.option(
        "--site",
        metavar="NAME|FILE",
        shell_complete=completes("site"),
        help="The site. Default: see hpcpipe site show.",
    )(function)


def asked(resources: Mapping[str, Any]) -> Resources:
    """Parse the values of `resource_options`; raise UsageError for one that cannot be read."""
    from hpcpipe.resources import Resources

    try:
        return Resources.parse(**resources)
    except ConfigError as error:
        raise UsageError(str(error)) from error


def resource_options(function: Any) -> Any:
    """Add an option for each resource a task can request."""
    for name, metavar, words in (
        ("--checkpoint", "SIGNAL@TIME", "Signal to save its state, ahead of its time limit."),
        ("--on-time", "xN", "Out of time: how much more it is retried with, or 'no'."),
        ("--on-memory", "xN", "Out of memory: how much more it is retried with, or 'no'."),
        ("--retry-if", "CODE|WORDS", "Retry only for this exit code, or with this in its log."),
        ("--retries", "N", "How often a failed task is retried in the queue."),
        ("--prefer", "WHAT", "Which of the queues that fit: soonest or cheapest."),
        ("--software", "NAME[>=VERSION]", "Software from the site's catalogue."),
        ("--requires", "WORD", "A feature the queue must offer: rhel9, avx512, a100."),
        ("--pack", "N", "Tasks per job or array element."),
        ("--throttle", "N", "Elements of an array that may run at once."),
        ("--scratch", "SIZE", "Node-local disk per task."),
        ("--account", "NAME", "Account to charge; '' for none."),
        ("--queue", "NAME", "Queue; on Slurm, the partition."),
        ("--gpus", "N", "GPUs per task."),
        ("--time", "TIME", "Time limit per task: 30m, 2h30m, 1-00:00:00."),
        ("--memory", "SIZE", "Memory per task: 500M, 2G."),
        ("--cpus", "N", "CPUs per task."),
    ):
        kind = int if metavar == "N" else str
        listed = name in ("--requires", "--software", "--retry-if")
        function = click.option(
            name,
            metavar=metavar,
            type=kind,
            help=words,
            multiple=listed,
            callback=_unless_empty,
            shell_complete=completes(name.removeprefix("--")),
        )(function)
    return function


def _unless_empty(_: click.Context, __: click.Parameter, value: Any) -> Any:
    """Return None for an option that may be repeated and was not given."""
    return None if value == () else value


def consent_options(function: Any) -> Any:
    """Add the options that allow what is otherwise refused: ``over_budget``, ``replace``."""
    for name, words in (
        ("--replace", "Cancel running tasks whose code or inputs have changed."),
        ("--over-budget", "Submit even if it may cost more than the budget."),
    ):
        function = click.option(name, is_flag=True, help=words)(function)
    return function


def notify_option(function: Any) -> Any:
    """Add ``--notify``, which tells a person that the run has ended."""
    return click.option(
        "--notify",
        metavar="COMMAND|mail[:ADDRESS]",
        help="Line of sh to run when the run has ended, by a job; mail: the scheduler sends mail; "
        "'' for none.",
    )(function)


def after_run_option(function: Any) -> Any:
    """Add ``--after-run``, which names a run that must succeed first."""
    return click.option(
        "--after-run",
        type=click.Path(exists=True, file_okay=False, resolve_path=True),
        metavar="FOLDER",
        help="Submit by a job, once the run in this folder has succeeded.",
    )(function)


def calls_option(function: Any) -> Any:
    """Add ``--calls``, which trades submit commands against time."""
    return click.option(
        "--calls",
        type=click.IntRange(1),
        metavar="N",
        help="Submit commands it may take; hpcpipe plan prints what more of them would gain.",
    )(function)
