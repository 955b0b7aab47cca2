"""Every public constant of this platform; _constants.pyi, which is generated, spells them out."""

import sys

from tracesock import _enums, _native

_types = _native.constants(sys.getwindowsversion().build if sys.platform == "win32" else 2**32 - 1)

_names = _types["int"] | _types["str"]
for _enumeration in (
    _enums.AddressFamily,
    _enums.AddressInfo,
    _enums.MsgFlag,
    _enums.SocketKind,
):
    _names |= _enums.members(_enumeration, _types[_enumeration.__name__])

names = _names
globals().update(_names)
__all__ = list(_names)
