"""The module in whose names the functions and `accept()` look other names up.

A program that replaces `socket.socket` or `socket.getaddrinfo` means the calls inside
`create_connection` as well. `public` is the tracesock package, or the standard library's `socket`
while tracesock is installed there.
"""

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from typing import Any


public: "Any" = None

# Who is told about look-ups and connection set-ups; None while telemetry is off.
observer: "Any" = None
