"""The enumerations of the module, which are the standard library's own.

A constant that the running standard library lacks, such as AF_BLUETOOTH on an interpreter built
without BlueZ, becomes an instance of the same class that is not in the class's list of members:
the classes stay as the standard library made them, and `isinstance`, comparison, `repr`, `copy`
and `pickle` (by its name in this package) work.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from socket import AddressFamily, AddressInfo, MsgFlag, SocketKind
from typing import TypeVar

__all__ = ["AddressFamily", "AddressInfo", "MsgFlag", "SocketKind", "family_enum", "kind_enum"]

Member = TypeVar("Member", AddressFamily, AddressInfo, MsgFlag, SocketKind)

_families: dict[int, AddressFamily] = {int(member): member for member in AddressFamily}
_kinds: dict[int, SocketKind] = {int(member): member for member in SocketKind}


def family_enum(value: int) -> AddressFamily | int:
    """The address family with this number, or the number itself where no family has it."""
    return _families.get(value, value)


def kind_enum(value: int) -> SocketKind | int:
    """The socket kind with this number, or the number itself where no kind has it."""
    return _kinds.get(value, value)


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
    # Calling the class would look the value up among its members.
    member = int.__new__(enumeration, value)
    member._name_ = name
    member._value_ = value
    # socket's enumerations are pickled as the global of this name in the member's module.
    member.__module__ = __package__
    if enumeration is AddressFamily:
        _families.setdefault(value, member)
    elif enumeration is SocketKind:
        _kinds.setdefault(value, member)
    return member
