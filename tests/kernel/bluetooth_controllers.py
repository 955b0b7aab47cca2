"""Two Bluetooth controllers in software, within reach of each other.

Linux's /dev/vhci makes a controller out of a file descriptor: what the host stack sends is read
from it, what the controller answers is written to it. Here one thread answers for two such
controllers and carries their connections and data from one to the other, so that L2CAP, RFCOMM
and SCO sockets of one kernel exchange real messages with each other.

    python3 bluetooth_controllers.py COMMAND [ARGUMENT]...

runs a command while the two controllers, hci0 and hci1 on a machine without others, are there.

Commands and events are those of the Bluetooth Core Specification 5.4, volume 4, part E, section 7;
only BR/EDR, and only what Linux asks for. Needs CAP_NET_ADMIN and the module hci_vhci.
"""

from __future__ import annotations

import errno
import fcntl
import os
import selectors
import struct
import subprocess
import sys
import threading

COMMAND, ACL, SCO, EVENT, VENDOR = 1, 2, 3, 4, 0xFF
ACL_LINK, SCO_LINK = 1, 0

CONNECTION_COMPLETE, CONNECTION_REQUEST, DISCONNECTION_COMPLETE = 0x03, 0x04, 0x05
REMOTE_FEATURES_COMPLETE, COMMAND_COMPLETE, COMMAND_STATUS = 0x0B, 0x0E, 0x0F
REMOTE_NAME_COMPLETE, COMPLETED_PACKETS, PACKET_TYPE_CHANGED = 0x07, 0x13, 0x1D

CREATE_CONNECTION, DISCONNECT, ACCEPT_CONNECTION = 0x0405, 0x0406, 0x0409
CHANGE_PACKET_TYPE, READ_REMOTE_FEATURES, REMOTE_NAME = 0x040F, 0x041B, 0x0419
ADD_SCO, SETUP_SYNCHRONOUS, ACCEPT_SYNCHRONOUS = 0x0407, 0x0428, 0x0429

HCIDEVUP, HCISETSCAN = 0x400448C9, 0x400448DD
SCAN_PAGE = 2
# 3-slot and 5-slot packets, encryption, role switch; no secure simple pairing, no LE.
FEATURES = bytes([0x27, 0, 0, 0, 0, 0, 0, 0])

# What follows the status in the answer to a command; every other command is answered with the
# status alone.
ANSWERS = {
    0x1001: struct.pack("<BHBHH", 6, 0, 6, 0x05F1, 0),  # Read Local Version: 4.0, Linux Foundation
    0x1002: bytes(64),  # Read Local Supported Commands: none that is optional
    0x1003: FEATURES,
    0x1005: struct.pack("<HBHH", 1021, 64, 8, 8),  # Read Buffer Size
    0x0C14: b"tracesock".ljust(248, b"\0"),  # Read Local Name
    0x0C23: bytes(3),  # Read Class of Device
    0x0C25: struct.pack("<H", 0x0060),  # Read Voice Setting
    0x0C38: b"\x01",  # Read Number Of Supported IAC
    0x0C39: b"\x01\x33\x8b\x9e",  # Read Current IAC LAP
}


class Controller:
    """One controller: its device, its address as 6 bytes in the order of the wire."""

    def __init__(self, address: str) -> None:
        self.address = bytes.fromhex(address.replace(":", ""))[::-1]
        self.fd = os.open("/dev/vhci", os.O_RDWR | os.O_CLOEXEC)
        os.write(self.fd, bytes([VENDOR, 0]))  # a primary (BR/EDR) controller
        answer = os.read(self.fd, 64)
        self.index = struct.unpack_from("<H", answer, 2)[0]

    def event(self, code: int, parameters: bytes) -> None:
        os.write(self.fd, bytes([EVENT, code, len(parameters)]) + parameters)

    def status(self, opcode: int, status: int = 0) -> None:
        self.event(COMMAND_STATUS, struct.pack("<BBH", status, 1, opcode))

    def complete(self, opcode: int, parameters: bytes) -> None:
        self.event(COMMAND_COMPLETE, struct.pack("<BH", 1, opcode) + parameters)


class Controllers:
    """Two controllers and the air between them; close() takes both away.

    indexes are those of the devices, (0, 1) on a machine without Bluetooth; addresses are text.
    """

    addresses = ("02:00:00:00:00:0A", "02:00:00:00:00:0B")

    def __init__(self) -> None:
        self._both = [Controller(address) for address in self.addresses]
        self.indexes = tuple(controller.index for controller in self._both)
        self._links: set[int] = set()  # one handle a link, the same at both ends
        self._next_handle = 1
        self._synchronous_asked = False
        self._wake, self._end = os.pipe()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake, selectors.EVENT_READ, None)
        for controller in self._both:
            self._selector.register(controller.fd, selectors.EVENT_READ, controller)
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="bluetooth controllers", daemon=True)
        self._thread.start()

    def up(self, hci) -> None:  # type: ignore[no-untyped-def]
        """Switches both devices on and lets them be connected to; hci is a raw HCI socket."""
        for index in self.indexes:
            try:
                fcntl.ioctl(hci.fileno(), HCIDEVUP, index)
            except OSError as error:
                if error.errno != errno.EALREADY:  # the kernel itself has switched it on
                    raise
            fcntl.ioctl(hci.fileno(), HCISETSCAN, struct.pack("=HxxI", index, SCAN_PAGE))

    def close(self) -> None:
        """Takes the controllers away. Raises what ended their thread before, if anything did."""
        os.write(self._end, b"x")
        self._thread.join(20)
        for fd in (self._wake, self._end, *(controller.fd for controller in self._both)):
            os.close(fd)
        self._selector.close()
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        try:
            while True:
                for key, _ in self._selector.select():
                    if key.data is None:
                        return
                    self._packet(key.data, os.read(key.fd, 4096))
        except BaseException as error:
            self.failure = error

    def _other(self, controller: Controller) -> Controller:
        return self._both[1 - self._both.index(controller)]

    def _packet(self, controller: Controller, packet: bytes) -> None:
        kind, body = packet[0], packet[1:]
        if kind == COMMAND:
            opcode, length = struct.unpack_from("<HB", body)
            self._command(controller, opcode, body[3 : 3 + length])
        elif kind in (ACL, SCO):
            field = struct.unpack_from("<H", body)[0]
            handle = field & 0xFFF
            if handle not in self._links:
                return
            if kind == ACL:
                # A host's first fragment is 0 or 2, a controller's always 2; 1 is a later one.
                boundary = 1 if field >> 12 & 3 == 1 else 2
                body = struct.pack("<H", handle | boundary << 12) + body[2:]
            os.write(self._other(controller).fd, bytes([kind]) + body)
            controller.event(COMPLETED_PACKETS, struct.pack("<BHH", 1, handle, 1))

    def _command(self, controller: Controller, opcode: int, parameters: bytes) -> None:
        other = self._other(controller)
        if opcode == 0x1009:  # Read BD_ADDR
            controller.complete(opcode, b"\0" + controller.address)
        elif opcode == CREATE_CONNECTION:
            controller.status(opcode)
            if parameters[:6] == other.address:
                request = controller.address + bytes(3) + bytes([ACL_LINK])
                other.event(CONNECTION_REQUEST, request)
            else:  # page timeout
                answer = struct.pack("<BH6sBB", 4, 0, parameters[:6], ACL_LINK, 0)
                controller.event(CONNECTION_COMPLETE, answer)
        elif opcode in (ADD_SCO, SETUP_SYNCHRONOUS):
            controller.status(opcode)
            self._synchronous_asked = True
            other.event(CONNECTION_REQUEST, controller.address + bytes(3) + bytes([SCO_LINK]))
        elif opcode == ACCEPT_CONNECTION:
            controller.status(opcode)
            self._connected(SCO_LINK if self._synchronous_asked else ACL_LINK)
        elif opcode == ACCEPT_SYNCHRONOUS:
            controller.status(opcode)
            self._connected(SCO_LINK)
        elif opcode == DISCONNECT:
            controller.status(opcode)
            handle, reason = struct.unpack_from("<HB", parameters)
            if handle in self._links:
                self._links.remove(handle)
                controller.event(DISCONNECTION_COMPLETE, struct.pack("<BHB", 0, handle, 0x16))
                other.event(DISCONNECTION_COMPLETE, struct.pack("<BHB", 0, handle, reason))
        elif opcode == READ_REMOTE_FEATURES:
            controller.status(opcode)
            controller.event(REMOTE_FEATURES_COMPLETE, b"\0" + parameters[:2] + FEATURES)
        elif opcode == CHANGE_PACKET_TYPE:
            controller.status(opcode)
            controller.event(PACKET_TYPE_CHANGED, b"\0" + parameters[:4])
        elif opcode == REMOTE_NAME:
            controller.status(opcode)
            name = b"tracesock".ljust(248, b"\0")
            controller.event(REMOTE_NAME_COMPLETE, b"\0" + parameters[:6] + name)
        else:
            controller.complete(opcode, b"\0" + ANSWERS.get(opcode, b""))

    def _connected(self, link: int) -> None:
        handle = self._next_handle
        self._next_handle += 1
        self._links.add(handle)
        self._synchronous_asked = False
        for controller in self._both:
            address = self._other(controller).address
            answer = struct.pack("<BH6sBB", 0, handle, address, link, 0)
            controller.event(CONNECTION_COMPLETE, answer)


if __name__ == "__main__":
    both = Controllers()
    status = subprocess.call(sys.argv[1:])
    both.close()
    sys.exit(status)
