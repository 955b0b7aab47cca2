"""Every public constant of this platform; _constants.pyi, which is generated, spells them out."""

import sys

from tracesock import _native, _stock

_types = _native.constants(
    sys.getwindowsversion().build if sys.platform == "win32" else 2**32 - 1, vars(_stock.native)
)

_names = _types["int"] | _types["str"]
for _enumeration in (
    _stock.AddressFamily,
    _stock.AddressInfo,
    _stock.MsgFlag,
    _stock.SocketKind,
):
    _names |= _stock.members(_enumeration, _types[_enumeration.__name__])

names = _names
globals().update(_names)
__all__ = list(_names)
