"""The enumerations of the module, which are the standard library's own.

A constant that the running standard library lacks, such as AF_BLUETOOTH on an interpreter built
without BlueZ, becomes an instance of the same class that is not in the class's list of members:
the classes stay as the standard library made them, and `isinstance`, comparison, `repr`, `copy`
and `pickle` (by its name in this package) work.
"""

from __future__ import annotations

import socket
from socket import AddressFamily, AddressInfo, MsgFlag, SocketKind

TYPE_CHECKING = False  # typing's own costs milliseconds to import
if TYPE_CHECKING:
    from collections.abc import Mapping
    from enum import IntEnum
    from typing import Any, TypeVar

    Member = TypeVar("Member", AddressFamily, AddressInfo, MsgFlag, SocketKind)

__all__ = [
    "AddressFamily",
    "AddressInfo",
    "MsgFlag",
    "SocketKind",
    "family_enum",
    "intenum_converter",
    "kind_enum",
]

_families: dict[int, AddressFamily] = {int(member): member for member in AddressFamily}
_kinds: dict[int, SocketKind] = {int(member): member for member in SocketKind}
_lookups: dict[type, dict[int, Any]] = {AddressFamily: _families, SocketKind: _kinds}


def family_enum(value: int) -> AddressFamily | int:
    """The address family with this number, or the number itself where no family has it."""
    return _families.get(value, value)


def kind_enum(value: int) -> SocketKind | int:
    """The socket kind with this number, or the number itself where no kind has it."""
    return _kinds.get(value, value)


def intenum_converter(value: int, enum_klass: type[IntEnum]) -> IntEnum | int:
    """The member of `enum_klass` with this value, or the value itself where none has it."""
    try:
        return enum_klass(value)
    except ValueError:
        found: IntEnum | int = _lookups.get(enum_klass, {}).get(value, value)
        return found


intenum_converter.__name__ = intenum_converter.__qualname__ = "_intenum_converter"
intenum_converter.__module__ = "tracesock"


def members(enumeration: type[Member], values: Mapping[str, int]) -> dict[str, Member]:
    """A member of `enumeration` for each name, the standard library's own where it has one."""
    stdlib = vars(socket)
    found: dict[str, Member] = {}
    for name, value in values.items():
        member = stdlib.get(name)
        if type(member) is not enumeration:
            member = _new_member(enumeration, name, value)
        found[name] = member
    return found


def _new_member(enumeration: type[Member], name: str, value: int) -> Member:
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
