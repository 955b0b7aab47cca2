"""`tracesock dashboard`: the embedded dashboard, one process and one page."""

from __future__ import annotations

import gc
import os
import webbrowser
from pathlib import Path

import click

from tracesock.dashboard import DEFAULT_PORT, OTLP_PORT


@click.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=DEFAULT_PORT,
    show_default=True,
    help="Port of the page and of OTLP; 0 takes a free one.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on. One that other machines reach needs a token.",
)
@click.option(
    "--database",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="SQLite file that keeps what was received."
    "  [default: ~/.local/state/tracesock/dashboard.sqlite3]",
)
@click.option(
    "--retention",
    default="7d,2GB",
    show_default=True,
    metavar="AGE,SIZE",
    help="How long, and up to which size, data is kept: 24h, 500MB, or both.",
)
@click.option(
    "--token",
    envvar="TRACESOCK_DASHBOARD_TOKEN",
    default=None,
    help="Token that requests must carry; made up and printed where one is needed."
    " Better given in TRACESOCK_DASHBOARD_TOKEN: arguments are seen by others.",
)
@click.option(
    "--allow-host",
    multiple=True,
    metavar="NAME",
    help="A further host name under which the dashboard may be asked for.",
)
@click.option(
    "--otlp-port",
    type=click.IntRange(0, 65535),
    default=OTLP_PORT,
    show_default=True,
    help="Second port for OTLP, left out where it is taken; 0 for none.",
)
@click.option("--no-browser", is_flag=True, help="Do not open the page in a browser.")
def dashboard(
    port: int,
    host: str,
    database: Path | None,
    retention: str,
    token: str | None,
    allow_host: tuple[str, ...],
    otlp_port: int,
    no_browser: bool,
) -> None:
    """Receive OpenTelemetry data and show it: connections, traces, peers, DNS, audit, health.

    Takes OTLP over HTTP, protobuf and JSON, on its own port and on 4318 where that is free. Ends
    with Ctrl-C.
    """
    try:
        from tracesock.dashboard.security import is_loopback, new_token
        from tracesock.dashboard.server import Dashboard, PortInUse, Settings, default_database
        from tracesock.dashboard.store import Retention, StoreError
    except ImportError as error:
        raise click.ClickException(
            f"the dashboard needs the package {error.name}: pip install 'tracesock[dashboard]'"
        ) from None
    try:
        kept = Retention.parse(retention)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--retention") from None
    if token is None and not is_loopback(host):
        token = new_token()
    try:
        served = Dashboard(
            Settings(
                database=database or default_database(),
                host=host,
                port=port,
                otlp_port=otlp_port or None,
                retention=kept,
                token=token,
                allowed_hosts=frozenset(name.lower() for name in allow_host),
            )
        )
    except (PortInUse, StoreError) as error:
        raise click.ClickException(str(error)) from None
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--token") from None

    address = served.url + (f"?token={token}" if token else "")

    def ready() -> None:
        click.echo(f"Dashboard:  {address}")
        ports = f"{served.url}" + (f" and port {served.otlp_port}" if served.otlp_port else "")
        click.echo(f"OTLP/HTTP:  {ports}")
        if otlp_port and served.otlp_port is None and otlp_port != served.port:
            click.echo(
                f"            port {otlp_port} is taken, so senders need"
                f" OTEL_EXPORTER_OTLP_ENDPOINT={served.url.rstrip('/')}"
            )
        if token:
            click.echo(
                "            senders need"
                f" OTEL_EXPORTER_OTLP_HEADERS='Authorization=Bearer {token}'"
            )
        click.echo(f"Database:   {served.store.path}")
        recovery = served.store.recovery
        if not recovery.clean:
            click.echo(f"            {recovery.describe()}")
        if not no_browser and _has_display():
            webbrowser.open(address)

    # What is loaded by now stays; of what ingest makes, little refers to itself.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    served.run(ready)


def _has_display() -> bool:
    """Whether a browser would have somewhere to open; a text browser would take the terminal."""
    return (
        os.name != "posix"
        or os.uname().sysname == "Darwin"
        or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    )
