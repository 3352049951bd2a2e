"""Stand-ins for schedulers that cannot be had here: their commands, in miniature.

Each takes the documented options and refuses all others, in the real one's words and with its exit
status; keeps its state in the folder ``$STANDIN``; and really runs the jobs, as processes of this
machine. What they answer is in the form of samples of the real ones' output.

`links` makes the commands that a module ``NAME`` lists in ``COMMANDS``: links to ``front.py``,
which calls the functions of those names.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path


def links(name: str, folder: Path) -> Path:
    """Make the commands of a stand-in in a folder, and return where they are."""
    commands = folder / "commands" / name
    commands.mkdir(parents=True, exist_ok=True)
    for command in import_module(f"standins.{name}").COMMANDS:
        if not (commands / command).is_symlink():
            (commands / command).symlink_to(Path(__file__).with_name("front.py"))
    return commands
