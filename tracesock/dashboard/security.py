"""Who may talk to the dashboard: Host, Origin, token; and the headers of every answer.

A page in the viewer's browser can reach 127.0.0.1 too. Against a foreign page stand three checks on
every request and on the web socket: the Host header must name this machine (a rebound DNS name does
not), an Origin header must be the dashboard's own, and `Sec-Fetch-Site` must not say that another
site's page asks. Beyond the loopback interface a token is needed as well.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

MIN_TOKEN: Final = 16
CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "manifest-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types tracesock",
    )
)
HEADERS: Final = (
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
)


def is_loopback(host: str) -> bool:
    """Whether a host to bind is reachable from this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def new_token() -> str:
    """A random token of 192 bits."""
    return secrets.token_urlsafe(24)


@dataclass(frozen=True, slots=True)
class Access:
    """The rules of one dashboard.

    host: the host it is bound to. token: what a request must carry, None for the loopback
    interface without one. names: further host names by which it may be called.

    Raises ValueError for a host beyond loopback without a token, and for a short token.
    """

    host: str = "127.0.0.1"
    token: str | None = None
    names: frozenset[str] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        if self.token is None and not is_loopback(self.host):
            raise ValueError(f"{self.host} can be reached from other machines: a token is needed")
        if self.token is not None and len(self.token) < MIN_TOKEN:
            raise ValueError(f"a token needs at least {MIN_TOKEN} characters")

    def knows_host(self, header: str) -> bool:
        """Whether a Host header (or an Origin's authority) names this dashboard."""
        try:
            parts = urlsplit(f"//{header}")
            host, _ = (parts.hostname or "").lower(), parts.port
        except ValueError:
            return False
        if not host or "@" in header or "/" in header or "?" in header or "#" in header:
            return False
        if is_loopback(host) or host in self.names or host == self.host.lower().strip("[]"):
            return True
        # An address in the Host header cannot be the work of a rebound name. It is of use only
        # where the dashboard listens on every interface.
        if self.host in ("0.0.0.0", "::", "[::]"):
            try:
                ipaddress.ip_address(host)
            except ValueError:
                return False
            return True
        return False

    def accepts_token(self, given: str | None) -> bool:
        if self.token is None:
            return True
        return given is not None and hmac.compare_digest(given.encode(), self.token.encode())


@dataclass(frozen=True, slots=True)
class _Denied(Exception):
    status: int
    text: str


class Guard:
    """ASGI middleware that applies `Access` and adds the headers to every answer."""

    def __init__(self, app: ASGIApp, access: Access, otlp_ports: Iterable[int] = ()) -> None:
        self._app = app
        self._access = access
        # Ports on which only /v1/ is answered: what listens on 4318 is no web page.
        self._otlp_ports = frozenset(otlp_ports)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                present = {name.lower() for name, _ in message.get("headers", ())}
                message["headers"] = [
                    *message.get("headers", ()),
                    *(h for h in HEADERS if h[0] not in present),
                ]
                if b"cache-control" not in present:
                    message["headers"].append((b"cache-control", b"no-store"))
            await send(message)

        try:
            self._check(scope)
            redirect = self._authenticate(scope)
        except _Denied as denied:
            await _refuse(scope, send_with_headers, denied.status, denied.text)
            return
        if redirect is not None:
            await _redirect(send_with_headers, *redirect)
            return
        await self._app(scope, receive, send_with_headers)

    def _check(self, scope: Scope) -> None:
        headers = _Headers(scope)
        hosts = headers.all(b"host")
        if len(hosts) != 1:
            raise _Denied(400, "Exactly one Host header is needed.")
        host = hosts[0]
        if not self._access.knows_host(host):
            raise _Denied(
                421,
                "This dashboard does not answer to that host name. Use 127.0.0.1 or localhost;"
                " further names are allowed with --allow-host.",
            )
        origins = headers.all(b"origin")
        websocket = scope["type"] == "websocket"
        if websocket and len(origins) != 1:
            raise _Denied(403, "A web socket needs an Origin header.")
        for origin in origins:
            if not _same_origin(origin, host):
                raise _Denied(403, "Requests from pages of another origin are not answered.")
        site = headers.first(b"sec-fetch-site")
        if site not in (None, "same-origin", "none"):
            navigation = headers.first(b"sec-fetch-mode") == "navigate"
            if websocket or scope["method"] not in ("GET", "HEAD") or not navigation:
                raise _Denied(403, "Requests from pages of another site are not answered.")
        server = scope.get("server")
        if (
            server
            and server[1] in self._otlp_ports
            and (websocket or not scope["path"].startswith("/v1/"))
        ):
            raise _Denied(404, "This port takes OTLP at /v1/traces, /v1/metrics and /v1/logs.")

    def _authenticate(self, scope: Scope) -> tuple[str, str] | None:
        """None when the request may pass; a location and a cookie when the token was in its URL."""
        if self._access.token is None:
            return None
        headers = _Headers(scope)
        scheme, _, bearer = (headers.first(b"authorization") or "").partition(" ")
        if scheme.lower() == "bearer" and self._access.accepts_token(bearer.strip()):
            return None
        # Cookies are shared by all ports of a host, so the port is in the name.
        cookie = f"tracesock_{(scope.get('server') or ('', 0))[1]}"
        if self._access.accepts_token(_cookie(headers, cookie)):
            return None
        if scope["type"] == "http" and scope["method"] == "GET":
            query = parse_qsl(scope.get("query_string", b"").decode("latin-1"))
            if self._access.accepts_token(dict(query).get("token")):
                rest = urlencode([(k, v) for k, v in query if k != "token"])
                # A path that begins with two slashes would be another host.
                location = "/" + scope["path"].lstrip("/") + (f"?{rest}" if rest else "")
                value = f"{cookie}={self._access.token}; HttpOnly; SameSite=Strict; Path=/"
                return location, value
        raise _Denied(
            401,
            "This dashboard needs its token: open the address that was printed when it started,"
            " or send it as 'Authorization: Bearer TOKEN'.",
        )


class _Headers:
    def __init__(self, scope: Scope) -> None:
        self._raw: list[tuple[bytes, bytes]] = scope["headers"]

    def all(self, name: bytes) -> list[str]:
        return [value.decode("latin-1") for key, value in self._raw if key == name]

    def first(self, name: bytes) -> str | None:
        values = self.all(name)
        return values[0] if values else None


def _cookie(headers: _Headers, name: str) -> str | None:
    for header in headers.all(b"cookie"):
        try:
            morsel: Any = SimpleCookie(header).get(name)
        except CookieError:
            continue
        if morsel is not None:
            return str(morsel.value)
    return None


def _same_origin(origin: str, host: str) -> bool:
    scheme, separator, authority = origin.partition("://")
    return bool(separator) and scheme in ("http", "https") and authority.lower() == host.lower()


async def _refuse(scope: Scope, send: Send, status: int, text: str) -> None:
    if scope["type"] == "websocket":
        # Closing before accepting is answered with 403 by the server.
        await send({"type": "websocket.close", "code": 1008, "reason": ""})
        return
    body = f"{text}\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
    ]
    if status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="tracesock"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _redirect(send: Send, location: str, cookie: str) -> None:
    headers = [
        (b"location", location.encode("ascii", "ignore")),
        (b"set-cookie", cookie.encode("latin-1")),
        (b"content-length", b"0"),
    ]
    await send({"type": "http.response.start", "status": 303, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
