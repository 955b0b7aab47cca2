"""What is shared with the standard library, because two of it would break programs.

`except socket.gaierror` elsewhere must catch ours, `http.client` compares with the very sentinel
`_GLOBAL_DEFAULT_TIMEOUT`, and an enum member is pickled by its class.

`module` is the standard library's own `socket`, whatever `sys.modules["socket"]` names later.

The enumerations are its own too. A constant that the running standard library lacks, such as
AF_BLUETOOTH on an interpreter built without BlueZ, becomes an instance of the same class that is
not in the class's list of members: the classes stay as the standard library made them, and
`isinstance`, comparison, `repr`, `copy` and `pickle` (by its name in this package) work.
"""

import _socket as native
import socket as module
from errno import EAGAIN, EBADF, EWOULDBLOCK
from socket import AddressFamily, AddressInfo, MsgFlag, SocketKind

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from collections.abc import Mapping
    from enum import IntEnum
    from typing import Any, TypeVar

    Member = TypeVar("Member", AddressFamily, AddressInfo, MsgFlag, SocketKind)

CAPI: "Any" = native.CAPI
SocketType: type = native.SocketType
gaierror = native.gaierror
herror = native.herror
has_ipv6: bool = native.has_ipv6
GLOBAL_DEFAULT_TIMEOUT: "Any" = module._GLOBAL_DEFAULT_TIMEOUT  # type: ignore[attr-defined]

__all__ = [
    "CAPI",
    "EAGAIN",
    "EBADF",
    "EWOULDBLOCK",
    "GLOBAL_DEFAULT_TIMEOUT",
    "AddressFamily",
    "AddressInfo",
    "MsgFlag",
    "SocketKind",
    "SocketType",
    "family_enum",
    "gaierror",
    "has_ipv6",
    "herror",
    "intenum_converter",
    "kind_enum",
    "module",
    "native",
]

# --- enumerations -------------------------------------------------------------------------------

_families: dict[int, AddressFamily] = {int(member): member for member in AddressFamily}
_kinds: dict[int, SocketKind] = {int(member): member for member in SocketKind}
_lookups: "dict[type, dict[int, Any]]" = {AddressFamily: _families, SocketKind: _kinds}


def family_enum(value: int) -> AddressFamily | int:
    """The address family with this number, or the number itself where no family has it."""
    return _families.get(value, value)


def kind_enum(value: int) -> SocketKind | int:
    """The socket kind with this number, or the number itself where no kind has it."""
    return _kinds.get(value, value)


def intenum_converter(value: int, enum_klass: "type[IntEnum]") -> "IntEnum | int":
    """The member of `enum_klass` with this value, or the value itself where none has it."""
    try:
        return enum_klass(value)
    except ValueError:
        found: IntEnum | int = _lookups.get(enum_klass, {}).get(value, value)
        return found


intenum_converter.__name__ = intenum_converter.__qualname__ = "_intenum_converter"
intenum_converter.__module__ = "tracesock"


def members(enumeration: "type[Member]", values: "Mapping[str, int]") -> "dict[str, Member]":
    """A member of `enumeration` for each name, the standard library's own where it has one."""
    stdlib = vars(module)
    found: dict[str, Member] = {}
    for name, value in values.items():
        member = stdlib.get(name)
        if type(member) is not enumeration:
            member = _new_member(enumeration, name, value)
        found[name] = member
    return found


def _new_member(enumeration: "type[Member]", name: str, value: int) -> "Member":
    # Calling the class would look the value up among its members, and so would unpickling: this
    # one is pickled as the global of its name in this package.
    member = int.__new__(enumeration, value)
    vars(member).update(
        _name_=name,
        _value_=value,
        __objclass__=enumeration,
        __module__=__package__,
        __reduce_ex__=lambda protocol: name,
    )
    if enumeration in _lookups:
        _lookups[enumeration].setdefault(value, member)
    return member
