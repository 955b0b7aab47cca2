"""A name server for tests: knows the zone `shop.test`, and nothing else.

api, db, cache          an address of 127.0.0.0/8 at once
host-N                  the same, for any N
slow                    after 0.7 s
missing-*               there is no such name
broken                  the server fails
"""

from __future__ import annotations

import re
import socket
import struct
import threading

ZONE = "shop.test"
SLOW = 0.7  # seconds
ADDRESSES = {"api": "127.0.0.2", "db": "127.0.0.3", "cache": "127.0.0.4", "slow": "127.0.0.2"}
_NAME_ERROR, _SERVER_FAILURE = 3, 2
_A = 1


class Resolver:
    """Answers on UDP until it is closed."""

    def __init__(self, address: str, port: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, port))
        self._closed = False
        threading.Thread(target=self._serve, name="resolver", daemon=True).start()

    def close(self) -> None:
        self._closed = True
        self._socket.close()

    def _serve(self) -> None:
        while not self._closed:
            try:
                query, client = self._socket.recvfrom(512)
                name, kind, end = _question(query)
            except (OSError, IndexError, UnicodeDecodeError, struct.error):
                continue
            first = name.removesuffix(f".{ZONE}") if name.endswith(f".{ZONE}") else ""
            answer = _answer(query[:end], first, kind)
            delay = SLOW if first == "slow" else 0.0
            timer = threading.Timer(delay, self._send, (answer, client))
            timer.daemon = True
            timer.start()

    def _send(self, answer: bytes, client: tuple[str, int]) -> None:
        try:
            self._socket.sendto(answer, client)
        except OSError:
            pass


def _question(query: bytes) -> tuple[str, int, int]:
    """(name, type, where it ends) of a query's only question, RFC 1035 section 4.1.2."""
    labels, place = [], 12
    while query[place]:
        length = query[place]
        labels.append(query[place + 1 : place + 1 + length].decode("ascii").lower())
        place += 1 + length
    (kind,) = struct.unpack_from("!H", query, place + 1)
    return ".".join(labels), kind, place + 5


def _answer(question: bytes, first: str, kind: int) -> bytes:
    identifier = question[:2]
    address = ADDRESSES.get(first) or ("127.0.0.2" if re.fullmatch(r"host-\d+", first) else "")
    code, records = 0, b""
    if first == "broken":
        code = _SERVER_FAILURE
    elif not address:
        code = _NAME_ERROR
    elif kind == _A:
        # A pointer to the question's name, type A, class IN, 1 s, 4 bytes.
        records = struct.pack("!HHHIH", 0xC00C, _A, 1, 1, 4) + socket.inet_aton(address)
    flags = 0x8580 | code
    return (
        identifier + struct.pack("!HHHHH", flags, 1, bool(records), 0, 0) + question[12:] + records
    )
