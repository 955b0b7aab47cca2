"""The command `tracesock`: one module a subcommand, imported when it is called."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

import click

# Each is a module tracesock.cli.NAME with a click command of the same name.
_SUBCOMMANDS = ("demo", "run", "dashboard", "top", "doctor", "audit")


class _Commands(click.Group):
    """Subcommands by name, without importing them for the name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in _SUBCOMMANDS if find_spec(f"{__name__}.{name}") is not None]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = getattr(import_module(f"{__name__}.{cmd_name}"), cmd_name)
        return command


def _print_version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    from tracesock import __version__

    click.echo(f"tracesock {__version__}")
    ctx.exit()


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and end.",
)
def _group() -> None:
    """Python's sockets, faster, and able to tell what every call did."""


def main() -> None:
    """The entry point: runs the command line of this process and ends it."""
    _group(prog_name="tracesock")
