"""`tracesock audit`: check policies and logs, and say what is in them."""

from __future__ import annotations

import ipaddress
import json
import os
from pathlib import Path
from typing import Any, NoReturn

import click

from tracesock.audit.text import printable

_FILE = click.Path(dir_okay=False, exists=False)
_PROBLEMS = 1


def _fail(error: Exception) -> NoReturn:
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}"
    raise click.ClickException(printable(text, 1000))


def _key(path: str | None) -> Any:
    from tracesock.audit.chain import Key

    if path is None:
        return None
    try:
        return Key.read(path)
    except (OSError, ValueError) as error:
        _fail(error)


def _policy(path: str) -> Any:
    from tracesock.audit.policy import PolicyError, read_policy

    try:
        return read_policy(path)
    except PolicyError as error:
        _fail(error)


@click.group(short_help="Check policies and audit logs.")
def audit() -> None:
    """Check policies and audit logs, and say what is in them."""


@audit.command(short_help="Check a policy.")
@click.argument("policy", type=_FILE)
@click.argument("peer", required=False)
@click.argument("port", type=click.IntRange(0, 65535), required=False)
@click.option("--host", "hosts", multiple=True, help="A name that the address was looked up by.")
@click.option("--ingress", is_flag=True, help="A connection from PEER to the local PORT.")
def check(
    policy: str, peer: str | None, port: int | None, hosts: tuple[str, ...], ingress: bool
) -> None:
    """Check the file POLICY; with the address PEER and PORT, say what it does with them.

    A PEER that is a host name is looked up here and now.
    """
    from tracesock.audit.records import Endpoint

    read = _policy(policy)
    if peer is None:
        rules = f"{len(read.rules)} rule{'' if len(read.rules) == 1 else 's'}"
        click.echo(f"{printable(policy)}: {rules}, default {read.default}, mode {read.mode}")
        return
    if port is None:
        raise click.UsageError("a PEER needs a PORT")
    names = list(hosts)
    try:
        addresses = [str(ipaddress.ip_address(peer))]
    except ValueError:
        addresses = _look_up(peer)
        names.append(peer)
    for address in addresses:
        kind = "inet6" if ":" in address else "inet"
        verdict = read.judge(
            Endpoint(kind, address, port),
            direction="ingress" if ingress else "egress",
            port=port if ingress else None,
            names=names,
        )
        by = f"rule '{verdict.rule}'" if verdict.rule else "no ingress rule"
        click.echo(f"{address} port {port}: {verdict.action} by {by}")


def _look_up(name: str) -> list[str]:
    from tracesock._stock import module as stock

    try:
        found = stock.getaddrinfo(name, None, 0, stock.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise click.ClickException(f"{printable(name)}: {error}") from None
    return list(dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found))


@audit.command(short_help="Check that a log is what was written.")
@click.argument("file", type=_FILE)
@click.option("--key", type=_FILE, metavar="FILE", help="The key that its tips are signed with.")
@click.option(
    "--tip",
    "tips",
    multiple=True,
    metavar="TIP",
    help="A tip that was kept elsewhere: the line that was printed, or SEQ:HASH.",
)
@click.option("--tips", "tip_file", type=_FILE, metavar="FILE", help="A file of such lines.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--textfile",
    type=_FILE,
    metavar="FILE",
    help="Write the result as metrics, for the textfile collector of Prometheus's node exporter.",
)
@click.option(
    "--service-name",
    envvar="OTEL_SERVICE_NAME",
    default="tracesock",
    help="The service whose log it is, in these metrics. OTEL_SERVICE_NAME where not given.",
)
def verify(
    file: str,
    key: str | None,
    tips: tuple[str, ...],
    tip_file: str | None,
    as_json: bool,
    textfile: str | None,
    service_name: str,
) -> None:
    """Check that the log FILE, with what rotation has put aside, is what was written.

    Finds what was changed, removed, moved, inserted or cut off. Ends with the status 0 where
    nothing is wrong, 1 where something is, 2 where the log cannot be read; then --textfile is left
    as it was, and the time in it tells that.
    """
    from tracesock.audit.chain import parse_tip
    from tracesock.audit.textfile import write_textfile
    from tracesock.audit.verify import verify as check_log

    try:
        lines = [*tips]
        if tip_file is not None:
            lines += [line for line in Path(tip_file).read_text().splitlines() if line.strip()]
        kept = [parse_tip(line) for line in lines]
    except (OSError, ValueError) as error:
        raise click.UsageError(printable(str(error))) from None
    secret = _key(key)
    try:
        found = check_log(file, key=secret, tips=kept)
    except OSError as error:
        raise click.UsageError(f"{printable(file)}: {error.strerror}") from None
    if textfile is not None:
        try:
            write_textfile(textfile, found, log=file, service=service_name)
        except OSError as error:
            _fail(error)
    if as_json:
        click.echo(json.dumps(_verification(found)))
    else:
        for problem in found.problems:
            click.echo(printable(problem))
        for note in found.notes:
            click.echo(f"note: {printable(note)}")
        emitted = found.delivered + found.dropped
        click.echo(
            f"{'intact' if found.intact else 'NOT INTACT'}: records {found.first}-{found.last}"
            f" of {len(found.files)} file{'' if len(found.files) == 1 else 's'};"
            f" emitted {emitted} = delivered {found.delivered} + dropped {found.dropped};"
            f" tip {found.last}:{found.hash}"
        )
    if not found.intact:
        raise click.exceptions.Exit(_PROBLEMS)


def _verification(found: Any) -> dict[str, Any]:
    return {
        "intact": found.intact,
        "chain": found.chain,
        "first": found.first,
        "last": found.last,
        "tip": f"{found.last}:{found.hash}",
        "files": found.files,
        "problems": [
            {"file": problem.path, "line": problem.line, "text": problem.text}
            for problem in found.problems
        ],
        "notes": found.notes,
        "emitted": found.delivered + found.dropped,
        "delivered": found.delivered,
        "dropped": found.dropped,
        "signed_tips": found.signed_tips,
        "unsigned_tips": found.unsigned_tips,
        "processes": [
            {
                "source": source,
                "pid": process.pid,
                "program": process.program,
                "emitted": process.emitted,
                "delivered": process.delivered,
                "dropped": process.dropped + process.lost,
                "ended": process.ended or None,
            }
            for source, process in found.sources.items()
        ],
    }


@audit.command(short_help="Write what killed processes left behind.")
@click.argument("file", type=_FILE)
@click.option("--key", type=_FILE, metavar="FILE", help="The key to sign the tips with.")
def recover(file: str, key: str | None) -> None:
    """Write to the log FILE what killed processes had not written yet.

    The next process that writes to the log does the same by itself.
    """
    import secrets

    from tracesock.audit.formats import format_of
    from tracesock.audit.logfile import FileSink, rotated_files

    # A process that was killed while it rotated the log has left none of that name.
    there = [name for name in (*rotated_files(file), file) if os.path.exists(name)]
    written = [name for name in there if os.path.getsize(name)]
    if not there:
        raise click.UsageError(f"{printable(file)}: no such file")
    try:
        with open((written or there)[-1], "rb") as opened:
            form = format_of(opened.readline(1 << 20))
        log = FileSink(file, format=form, key=_key(key))
        log.open(secrets.token_hex(8))
        count = log.adopt()
        log.close({"emitted": 0, "dropped": 0, "lost": 0, "refused": 0})
    except (OSError, ValueError) as error:
        _fail(error)
    click.echo(f"recovered what {count} process{'' if count == 1 else 'es'} left behind")


@audit.command(short_help="Say what another policy would have done.")
@click.option("--policy", required=True, type=_FILE, metavar="FILE", help="The new policy.")
@click.argument("file", type=_FILE)
@click.option("--fail", is_flag=True, help="End with the status 1 where anything would be denied.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def replay(policy: str, file: str, fail: bool, as_json: bool) -> None:
    """Say what a new policy would have denied of what is in the log FILE."""
    from tracesock.audit.replay import ReadError, read_log
    from tracesock.audit.replay import replay as judge

    read = _policy(policy)
    try:
        found = judge(read, read_log(file))
    except (OSError, ReadError) as error:
        _fail(error)
    if as_json:
        click.echo(
            json.dumps(
                {
                    "decisions": found.decisions,
                    "would_deny": [_change(change) for change in found.denied],
                    "would_allow": [_change(change) for change in found.allowed],
                }
            )
        )
    else:
        for title, changes in (("would deny", found.denied), ("would allow", found.allowed)):
            for change in changes:
                name = f" ({printable(change.host)})" if change.host else ""
                click.echo(
                    f"{title} {change.count} x {printable(change.event)}"
                    f" {printable(change.peer)}{name} by rule '{printable(change.rule)}',"
                    f" was {printable(change.before)}"
                )
        denied = sum(change.count for change in found.denied)
        allowed = sum(change.count for change in found.allowed)
        click.echo(
            f"{found.decisions} decisions: {denied} would be denied that were not,"
            f" {allowed} allowed that were denied"
        )
    if fail and found.denied:
        raise click.exceptions.Exit(_PROBLEMS)


def _change(change: Any) -> dict[str, Any]:
    from tracesock.audit.records import timestamp

    return {
        "event": change.event,
        "direction": change.direction,
        "peer": change.peer,
        "host": change.host,
        "was": change.before,
        "rule": change.rule,
        "count": change.count,
        "first": timestamp(change.first),
        "last": timestamp(change.last),
    }


@audit.command(short_help="Sum up a log.")
@click.argument("file", type=_FILE)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--top", default=50, show_default=True, help="How many peers to list.")
def report(file: str, as_json: bool, top: int) -> None:
    """Sum up the log FILE: peers, denials, first-seen destinations, beacon-like intervals."""
    from tracesock.audit.replay import ReadError, read_log
    from tracesock.audit.replay import report as sum_up

    try:
        found = sum_up(read_log(file))
    except (OSError, ReadError) as error:
        _fail(error)
    if as_json:
        click.echo(json.dumps(found.as_dict()))
        return
    _print_report(found, top)


def _print_report(found: Any, top: int) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from tracesock.audit.records import timestamp

    console = Console(highlight=False)

    def table(title: str, *columns: str) -> Table:
        made = Table(title=title, title_justify="left", header_style="bold")
        for column in columns:
            number = column in ("calls", "denied", "failed", "sent", "received", "count")
            made.add_column(column, justify="right" if number else "left", overflow="fold")
        return made

    def row(into: Table, *values: object) -> None:
        # As text, never as markup, whatever a log says.
        into.add_row(*(Text(printable(value)) for value in values))

    span = f", {timestamp(found.first)} to {timestamp(found.last)}" if found.records else ""
    summary = f"{found.records} records of {found.processes} processes{span}"
    console.print(Text(summary), soft_wrap=True)
    if found.dropped:
        console.print(Text(f"{found.dropped} further records were dropped"))
    by_calls = sorted(found.peers, key=lambda line: -line.calls)
    peers = table("Peers", "peer", "direction", "calls", "denied", "failed", "sent", "received")
    for line in by_calls[:top]:
        row(
            peers, line.peer, line.direction, line.calls, line.denied, line.failed, line.sent,
            line.received,
        )  # fmt: skip
    console.print(peers)
    if len(by_calls) > top:
        console.print(Text(f"and {len(by_calls) - top} more peers"))
    denials = table("Denials", "rule", "action", "peer", "count")
    for entry in found.denials[:top]:
        row(denials, *entry)
    console.print(denials)
    first = table("First seen", "time", "peer", "addresses", "program")
    outgoing = [line for line in found.peers if line.direction == "egress"]
    for line in outgoing[-top:]:
        addresses = ", ".join(sorted(line.addresses)[:4])
        row(first, timestamp(line.first), line.peer, addresses, ", ".join(sorted(line.programs)))
    console.print(first)
    beacons = table("Regular intervals", "peer", "calls", "every", "jitter")
    for beacon in found.beacons[:top]:
        row(beacons, beacon.peer, beacon.calls, f"{beacon.interval} s", f"{beacon.jitter:.1%}")
    console.print(beacons)
