"""What is shared with the standard library, because two of it would break programs.

`except socket.gaierror` elsewhere must catch ours, `http.client` compares with the very sentinel
`_GLOBAL_DEFAULT_TIMEOUT`, and an enum member is pickled by its class.

`module` is the standard library's own `socket`, whatever `sys.modules["socket"]` names later.
"""

from __future__ import annotations

import _socket as native
import socket as module
from errno import EAGAIN, EBADF, EWOULDBLOCK

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from typing import Any


CAPI: Any = native.CAPI
SocketType: type = native.SocketType
gaierror = native.gaierror
herror = native.herror
has_ipv6: bool = native.has_ipv6
GLOBAL_DEFAULT_TIMEOUT: Any = module._GLOBAL_DEFAULT_TIMEOUT  # type: ignore[attr-defined]

__all__ = [
    "CAPI",
    "EAGAIN",
    "EBADF",
    "EWOULDBLOCK",
    "GLOBAL_DEFAULT_TIMEOUT",
    "SocketType",
    "gaierror",
    "has_ipv6",
    "herror",
    "module",
    "native",
]
