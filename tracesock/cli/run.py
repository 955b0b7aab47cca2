"""`tracesock run`: a Python program with tracesock in place of `socket`."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import Any, NoReturn

import click

from tracesock.dropin import startup


@dataclass(frozen=True)
class Setting:
    """An option that is a variable of the program's environment, for its children as well."""

    option: str
    variables: tuple[str, ...]
    help: str
    metavar: str = "NAME"
    is_file: bool = False  # made absolute, because the program may change its directory


SETTINGS = (
    Setting("--service-name", ("OTEL_SERVICE_NAME",), "The service's name in what is told."),
    Setting(
        "--exporter",
        ("OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER"),
        "Where spans and metrics go: console, otlp or none.",
    ),
    Setting(
        "--policy",
        ("TRACESOCK_POLICY",),
        "An egress policy; SIGHUP reads it again.",
        metavar="FILE",
        is_file=True,
    ),
    Setting(
        "--audit-log",
        ("TRACESOCK_AUDIT_LOG",),
        "Where every decision is recorded.",
        metavar="FILE",
        is_file=True,
    ),
    Setting(
        "--learn",
        ("TRACESOCK_LEARN",),
        "Where to write the smallest policy that the run needed.",
        metavar="FILE",
        is_file=True,
    ),
)

# Python's own switches that are the program's as well; -E, -I and -S would keep tracesock out.
_SWITCHES = "bBdOquvWX"


class _RunCommand(click.Command):
    """Options up to the program; what follows it is the program's, whatever it looks like."""

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return ["[OPTIONS]", "(PROGRAM | -m MODULE)", "[ARGS]..."]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own, module, rest = self._split(ctx, list(args))
        ctx.obj = (module, rest)
        if module is None and not rest and not own:
            raise click.UsageError("name a program, or -m MODULE", ctx)
        return super().parse_args(ctx, own)

    def _split(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[list[str], str | None, list[str]]:
        takes_value = {
            name: not getattr(option, "is_flag", False)
            for option in self.get_params(ctx)
            for name in option.opts
        }
        position = 0
        while position < len(args):
            word = args[position]
            if word == "--":
                return args[:position], None, args[position + 1 :]
            if word == "-m":
                if position + 1 == len(args):
                    raise click.UsageError("-m needs the name of a module", ctx)
                return args[:position], args[position + 1], args[position + 2 :]
            if word.startswith("-m") and not word.startswith("--"):
                return args[:position], word[2:], args[position + 1 :]
            if not word.startswith("-") or word == "-":
                return args[:position], None, args[position:]
            position += 2 if takes_value.get(word) else 1
        return args, None, []


def _options(command: click.Command) -> click.Command:
    for setting in reversed(SETTINGS):
        kind: Any = click.Path(exists=False, dir_okay=False) if setting.is_file else str
        command.params.insert(
            0,
            click.Option([setting.option], type=kind, metavar=setting.metavar, help=setting.help),
        )
    return command


@_options
@click.command(
    cls=_RunCommand,
    short_help="Run a Python program on tracesock.",
    epilog="Everything else is asked for by the OTEL_* and TRACESOCK_* variables.",
)
@click.option(
    "--show-environment",
    is_flag=True,
    help="Run nothing: print the variables that put tracesock under every Python process.",
)
@click.pass_context
def run(ctx: click.Context, /, show_environment: bool, **values: str | None) -> None:
    """Run a Python program with tracesock in place of socket.

    PROGRAM is a Python file, a directory or archive with a __main__.py, or the name of a command,
    such as gunicorn. Its arguments, exit status, signals and tracebacks are its own, and the Python
    processes that it starts have tracesock in place as well.
    """
    module, words = ctx.obj
    added = _variables(values) | startup.environment(os.environ)
    if show_environment:
        for name, value in sorted(added.items()):
            click.echo(f"{name}={shlex.quote(value)}")
        return
    if module is None and not words:
        raise click.UsageError("name a program, or -m MODULE", ctx)
    if not sys.executable:
        raise click.ClickException("this Python does not know its own executable")
    if module is not None:
        _execute([sys.executable, *_switches(), "-m", module, *words], added)
    if _is_python(words[0]):
        _execute([sys.executable, *_switches(), *words], added)
    # First beside this Python, whose environment need not be the active one.
    beside = os.path.dirname(sys.executable)
    found = shutil.which(words[0], path=beside) or shutil.which(words[0])
    if found is None:
        raise click.UsageError(
            f"no such program: {words[0]!r} is not a file and not a command", ctx
        )
    _execute([words[0], *words[1:]], added, found)


def _variables(values: dict[str, str | None]) -> dict[str, str]:
    found = {}
    for setting in SETTINGS:
        value = values[setting.option.removeprefix("--").replace("-", "_")]
        if value is not None:
            text = os.path.abspath(value) if setting.is_file else value
            found.update(dict.fromkeys(setting.variables, text))
    return found


def _is_python(path: str) -> bool:
    """Whether Python is to read it: all that exists, but for executables of another kind."""
    if path == "-" or os.path.isdir(path):
        return True
    try:
        with open(path, "rb") as file:
            head = file.read(128)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # Python says what is wrong with it
    line = head.splitlines()[0] if head else b""
    foreign = head.startswith(b"\x7fELF") or (line.startswith(b"#!") and b"python" not in line)
    return not (foreign and os.access(path, os.X_OK))


def _switches() -> list[str]:
    """The switches that this Python was started with and that are the program's as well."""
    words = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    kept: list[str] = []
    previous = ""
    for word in words:
        if previous in ("-X", "-W"):
            kept += [previous, word]
        elif word not in ("-X", "-W") and word[:1] == "-" and word[1:2] in _SWITCHES:
            kept.append(word)
        previous = word if word in ("-X", "-W") else ""
    return kept


def _execute(words: list[str], added: dict[str, str], path: str | None = None) -> NoReturn:
    """This process becomes the program."""
    sys.stdout.flush()
    sys.stderr.flush()
    environment = {**os.environ, **added}
    path = path or words[0]
    if os.name == "nt":  # exec there starts another process and ends this one at once
        sys.exit(subprocess.run(words, executable=path, env=environment).returncode)
    # Python ignores these, and a program that is executed would inherit that.
    for name in ("SIGPIPE", "SIGXFSZ"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    try:
        os.execve(path, words, environment)
    except OSError as error:
        raise click.ClickException(f"cannot run {path}: {error.strerror}") from None
