"""The module in whose names the functions and `accept()` look other names up.

A program that replaces `socket.socket` or `socket.getaddrinfo` means the calls inside
`create_connection` as well. `public` is the tracesock package, or the standard library's `socket`
while tracesock is installed there.
"""

from __future__ import annotations

from typing import Any

public: Any = None
