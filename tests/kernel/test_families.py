"""Every Linux family moves a real message through tracesock.

`make test-kernel` runs this in a virtual machine whose kernel has all the families, and there a
missing one is a failure. Elsewhere what the kernel lacks is skipped. It needs the standard library
only, so it also runs as

    python3 tests/kernel/test_families.py
"""

from __future__ import annotations

import array
import errno
import faulthandler
import hashlib
import hmac
import importlib
import os
import pathlib
import secrets
import shutil
import struct
import subprocess
import sys
import threading
import unittest

HERE = pathlib.Path(__file__).resolve().parent
if __name__ == "__main__":
    sys.path[:1] = [str(HERE.parent.parent)]
sys.path.append(str(HERE))

from bluetooth_controllers import Controllers  # noqa: E402

# TRACESOCK_TEST_MODULE=socket runs the same on stock, to see that a test itself is right.
socket = importlib.import_module(os.environ.get("TRACESOCK_TEST_MODULE", "tracesock"))
REQUIRED = bool(os.environ.get("TRACESOCK_REQUIRE_FAMILIES"))
TIMEOUT = 20.0

# What errno says when a kernel or a user lacks a family, and not that tracesock is wrong.
ABSENT = {
    errno.EAFNOSUPPORT,
    errno.EPROTONOSUPPORT,
    errno.ESOCKTNOSUPPORT,
    errno.EPERM,
    errno.EACCES,
}
INTERFACE = "vcan0"


class FamilyTest(unittest.TestCase):
    """A test of one family: skips, and says why, where the kernel has not got it."""

    def open(self, family: int, kind: int, protocol: int = 0, module: str = ""):  # type: ignore[no-untyped-def]
        """A socket that is closed after the test, with a timeout of 20 s."""
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as error:
            if error.errno in ABSENT:
                self.absent(f"no socket({family}, {kind}, {protocol}): {error.strerror}", module)
            raise
        self.addCleanup(sock.close)
        sock.settimeout(TIMEOUT)
        return sock

    def absent(self, what: str, module: str = "") -> None:
        text = f"{what}; kernel module {module}" if module else what
        if REQUIRED:
            self.fail(text)
        self.skipTest(f"{text}; `make test-kernel` runs this in a virtual machine")

    def accept(self, listener):  # type: ignore[no-untyped-def]
        connection, peer = listener.accept()
        self.addCleanup(connection.close)
        connection.settimeout(TIMEOUT)
        return connection, peer

    def exchange(self, one, other) -> None:  # type: ignore[no-untyped-def]
        """Moves bytes in both directions of a connection."""
        self.assertEqual(one.send(b"from one"), 8)
        self.assertEqual(other.recv(100), b"from one")
        self.assertEqual(other.send(b"from the other"), 14)
        self.assertEqual(one.recv(100), b"from the other")


class CanTest(FamilyTest):
    frame_format = "=IB3x8s"
    frame_size = struct.calcsize(frame_format)

    def can(self, kind: int, protocol: int, module: str):  # type: ignore[no-untyped-def]
        sock = self.open(socket.AF_CAN, kind, protocol, module)
        try:
            socket.if_nametoindex(INTERFACE)
        except OSError:
            self.absent(f"no interface {INTERFACE}", "vcan")
        return sock

    def raw(self):  # type: ignore[no-untyped-def]
        sock = self.can(socket.SOCK_RAW, socket.CAN_RAW, "can-raw")
        sock.bind((INTERFACE,))
        return sock

    def build(self, identifier: int, data: bytes) -> bytes:
        return struct.pack(self.frame_format, identifier, len(data), data.ljust(8, b"\x00"))

    def dissect(self, frame: bytes) -> tuple[int, int, bytes]:
        identifier, length, data = struct.unpack(self.frame_format, frame)
        return identifier, length, data[:length]

    def test_example_of_the_documentation(self) -> None:
        """docs.python.org, socket, "Example": receive a frame, send it back, send another."""
        example, peer = self.raw(), self.raw()
        self.assertEqual(example.getsockname(), (INTERFACE,))
        peer.send(self.build(0x123, b"\x0a\x0b"))
        frame, address = example.recvfrom(self.frame_size)
        self.assertEqual(address, (INTERFACE,))
        self.assertEqual(self.dissect(frame), (0x123, 2, b"\x0a\x0b"))
        example.send(frame)
        example.send(self.build(0x01, b"\x01\x02\x03"))
        self.assertEqual(self.dissect(peer.recv(self.frame_size)), (0x123, 2, b"\x0a\x0b"))
        self.assertEqual(self.dissect(peer.recv(self.frame_size)), (0x01, 3, b"\x01\x02\x03"))

    def test_all_interfaces_and_sendto(self) -> None:
        everywhere = self.can(socket.SOCK_RAW, socket.CAN_RAW, "can-raw")
        everywhere.bind(("",))
        self.assertEqual(everywhere.getsockname(), ("",))
        sender = self.can(socket.SOCK_RAW, socket.CAN_RAW, "can-raw")
        sender.bind(("",))
        sender.sendto(self.build(0x7, b"to"), (INTERFACE,))
        frame, address = everywhere.recvfrom(self.frame_size)
        self.assertEqual((self.dissect(frame), address), ((0x7, 2, b"to"), (INTERFACE,)))

    def test_filter(self) -> None:
        receiver, sender = self.raw(), self.raw()
        accepted = struct.pack("=II", 0x200, 0x700)
        receiver.setsockopt(socket.SOL_CAN_RAW, socket.CAN_RAW_FILTER, accepted)
        self.assertEqual(
            receiver.getsockopt(socket.SOL_CAN_RAW, socket.CAN_RAW_FILTER, 8), accepted
        )
        sender.send(self.build(0x100, b"no"))
        sender.send(self.build(0x2FF, b"yes"))
        self.assertEqual(self.dissect(receiver.recv(self.frame_size)), (0x2FF, 3, b"yes"))

    def test_flexible_data_rate(self) -> None:
        receiver, sender = self.raw(), self.raw()
        for sock in (receiver, sender):
            sock.setsockopt(socket.SOL_CAN_RAW, socket.CAN_RAW_FD_FRAMES, 1)
        frame = struct.pack("=IBB2x64s", 0x55, 64, 0, bytes(range(64)))
        sender.send(frame)
        received = receiver.recv(100)
        self.assertEqual((len(received), received[8:]), (72, bytes(range(64))))

    def test_broadcast_manager(self) -> None:
        """BCM sends a frame at once (TX_SEND) and tells of a changed one (RX_SETUP)."""
        head = "@3I4l2I0q"
        raw = self.raw()
        manager = self.can(socket.SOCK_DGRAM, socket.CAN_BCM, "can-bcm")
        manager.connect((INTERFACE,))
        frame = self.build(0x321, b"bcm")
        send = struct.pack(head, socket.CAN_BCM_TX_SEND, 0, 0, 0, 0, 0, 0, 0, 1)
        manager.send(send + frame)
        received, address = raw.recvfrom(self.frame_size)
        self.assertEqual((received, address), (frame, (INTERFACE,)))
        setup = struct.pack(
            head,
            *(socket.CAN_BCM_RX_SETUP, socket.CAN_BCM_RX_FILTER_ID, 0, 0, 0, 0, 0, 0x111, 0),
        )
        manager.send(setup)
        raw.send(self.build(0x111, b"changed"))
        message, address = manager.recvfrom(200)
        size = struct.calcsize(head)
        self.assertEqual(struct.unpack(head, message[:size])[0], socket.CAN_BCM_RX_CHANGED)
        self.assertEqual(message[size:], self.build(0x111, b"changed"))
        self.assertEqual(address, (INTERFACE,))

    def test_isotp(self) -> None:
        """300 bytes: a first frame, the peer's flow control, consecutive frames."""
        one = self.can(socket.SOCK_DGRAM, socket.CAN_ISOTP, "can-isotp")
        other = self.can(socket.SOCK_DGRAM, socket.CAN_ISOTP, "can-isotp")
        one.bind((INTERFACE, 0x7E8, 0x7E0))
        other.bind((INTERFACE, 0x7E0, 0x7E8))
        self.assertEqual(one.getsockname(), (INTERFACE, 0x7E8, 0x7E0))
        payload = secrets.token_bytes(300)
        one.send(payload)
        self.assertEqual(other.recv(4096), payload)
        other.send(b"back")
        received, address = one.recvfrom(4096)
        self.assertEqual(received, b"back")
        self.assertEqual(address[0], INTERFACE)

    def test_j1939(self) -> None:
        one = self.can(socket.SOCK_DGRAM, socket.CAN_J1939, "can-j1939")
        other = self.can(socket.SOCK_DGRAM, socket.CAN_J1939, "can-j1939")
        one.bind((INTERFACE, socket.J1939_NO_NAME, socket.J1939_NO_PGN, 0x20))
        other.bind((INTERFACE, socket.J1939_NO_NAME, socket.J1939_NO_PGN, 0x30))
        self.assertEqual(
            one.getsockname(), (INTERFACE, socket.J1939_NO_NAME, socket.J1939_NO_PGN, 0x20)
        )
        one.sendto(b"12345678", (INTERFACE, socket.J1939_NO_NAME, 0x12300, 0x30))
        message, address = other.recvfrom(100)
        self.assertEqual(message, b"12345678")
        self.assertEqual(address, (INTERFACE, socket.J1939_NO_NAME, 0x12300, 0x20))
        payload = secrets.token_bytes(500)  # longer than a frame: the transport protocol
        one.sendto(payload, (INTERFACE, socket.J1939_NO_NAME, 0x12300, 0x30))
        message, ancillary, _, address = other.recvmsg(4096, 1000)
        self.assertEqual((message, address[3]), (payload, 0x20))
        destinations = [
            data
            for level, kind, data in ancillary
            if (level, kind) == (socket.SOL_CAN_BASE + socket.CAN_J1939, socket.SCM_J1939_DEST_ADDR)
        ]
        self.assertEqual(destinations, [b"\x30"])


class AlgTest(FamilyTest):
    """The kernel's cryptography, against OpenSSL's: hashlib, and the command where there is one."""

    key = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")
    iv = bytes(range(16))

    def algorithm(self, kind: str, name: str, key: bytes | None = None):  # type: ignore[no-untyped-def]
        sock = self.open(socket.AF_ALG, socket.SOCK_SEQPACKET, 0, "af_alg")
        sock.settimeout(None)  # these sockets never tell poll() that they can be accepted from
        try:
            sock.bind((kind, name))
        except FileNotFoundError:
            self.absent(f"no algorithm {name}", f"algif_{kind}")
        if key is not None:
            sock.setsockopt(socket.SOL_ALG, socket.ALG_SET_KEY, key)
        return sock

    def operation(self, algorithm):  # type: ignore[no-untyped-def]
        operation, address = algorithm.accept()
        self.addCleanup(operation.close)
        self.assertIsNone(address)
        return operation

    def openssl(self, *words: str, data: bytes) -> bytes:
        command = shutil.which("openssl")
        if command is None:
            self.absent("no openssl command to compare with")
        done = subprocess.run([command, *words], input=data, capture_output=True, check=True)  # type: ignore[list-item]
        return done.stdout

    def test_sha256(self) -> None:
        operation = self.operation(self.algorithm("hash", "sha256"))
        for data in (b"", b"abc", secrets.token_bytes(10_000)):
            with self.subTest(length=len(data)):
                operation.sendall(data)
                self.assertEqual(operation.recv(512), hashlib.sha256(data).digest())
        operation.send(b"in ", socket.MSG_MORE)
        operation.send(b"parts")
        self.assertEqual(operation.recv(512), hashlib.sha256(b"in parts").digest())

    def test_hmac(self) -> None:
        operation = self.operation(self.algorithm("hash", "hmac(sha256)", b"the key"))
        operation.sendall(b"message")
        self.assertEqual(operation.recv(512), hmac.digest(b"the key", b"message", "sha256"))

    def test_aes_cbc(self) -> None:
        """The vector of NIST SP 800-38A, F.2.1 and F.2.2."""
        plain = bytes.fromhex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51")
        secret = bytes.fromhex("7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2")
        algorithm = self.algorithm("skcipher", "cbc(aes)", self.key)
        operation = self.operation(algorithm)
        operation.sendmsg_afalg(op=socket.ALG_OP_ENCRYPT, iv=self.iv, msg=[plain])
        self.assertEqual(operation.recv(len(plain)), secret)
        operation = self.operation(algorithm)
        operation.sendmsg_afalg([secret], op=socket.ALG_OP_DECRYPT, iv=self.iv)
        self.assertEqual(operation.recv(len(secret)), plain)

    def test_aes_cbc_is_that_of_openssl(self) -> None:
        key, iv, plain = (secrets.token_bytes(n) for n in (32, 16, 4096))
        operation = self.operation(self.algorithm("skcipher", "cbc(aes)", key))
        operation.sendmsg_afalg([plain], op=socket.ALG_OP_ENCRYPT, iv=iv)
        received = operation.recv(len(plain))
        words = ("enc", "-aes-256-cbc", "-nopad", "-K", key.hex(), "-iv", iv.hex())
        self.assertEqual(received, self.openssl(*words, data=plain))

    def test_aes_gcm(self) -> None:
        """Test case 4 of "The Galois/Counter Mode of Operation" (McGrew, Viega), appendix B."""
        key = bytes.fromhex("feffe9928665731c6d6a8f9467308308")
        iv = bytes.fromhex("cafebabefacedbaddecaf888")
        associated = bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2")
        plain = bytes.fromhex(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
            "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
        )
        secret = bytes.fromhex(
            "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e"
            "21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091"
        )
        tag = bytes.fromhex("5bc94fbc3221a5db94fae95ae7121a47")
        algorithm = self.algorithm("aead", "gcm(aes)", key)
        algorithm.setsockopt(socket.SOL_ALG, socket.ALG_SET_AEAD_AUTHSIZE, None, len(tag))
        operation = self.operation(algorithm)
        options = {"iv": iv, "assoclen": len(associated)}
        operation.sendmsg_afalg([associated, plain], op=socket.ALG_OP_ENCRYPT, **options)
        whole = associated + secret + tag
        self.assertEqual(operation.recv(len(whole)), whole)  # for more than that it would wait
        operation = self.operation(algorithm)
        operation.sendmsg_afalg([associated, secret, tag], op=socket.ALG_OP_DECRYPT, **options)
        self.assertEqual(operation.recv(len(associated) + len(plain)), associated + plain)
        operation = self.operation(algorithm)
        forged = bytes([tag[0] ^ 1]) + tag[1:]
        operation.sendmsg_afalg([associated, secret, forged], op=socket.ALG_OP_DECRYPT, **options)
        with self.assertRaises(OSError) as caught:
            operation.recv(len(associated) + len(plain))
        self.assertEqual(caught.exception.errno, errno.EBADMSG)

    def test_random_numbers(self) -> None:
        algorithm = self.algorithm("rng", "drbg_nopr_hmac_sha256")
        algorithm.setsockopt(socket.SOL_ALG, socket.ALG_SET_KEY, secrets.token_bytes(32))
        operation = self.operation(algorithm)
        first, second = operation.recv(32), operation.recv(32)
        self.assertEqual((len(first), len(second)), (32, 32))
        self.assertNotEqual(first, second)


class VsockTest(FamilyTest):
    def connected(self, kind: int):  # type: ignore[no-untyped-def]
        listener = self.open(socket.AF_VSOCK, kind, 0, "vsock")
        listener.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
        listener.listen()
        cid, port = listener.getsockname()
        self.assertEqual(cid, socket.VMADDR_CID_ANY)
        client = self.open(socket.AF_VSOCK, kind, 0, "vsock")
        try:
            client.connect((socket.VMADDR_CID_LOCAL, port))
        except OSError as error:
            self.absent(f"no VSOCK to this machine itself: {error}", "vsock_loopback")
        server, peer = self.accept(listener)
        self.assertEqual(peer, (socket.VMADDR_CID_LOCAL, client.getsockname()[1]))
        self.assertEqual(client.getpeername(), (socket.VMADDR_CID_LOCAL, port))
        return client, server

    def test_stream(self) -> None:
        self.exchange(*self.connected(socket.SOCK_STREAM))

    def test_seqpacket_keeps_boundaries(self) -> None:
        client, server = self.connected(socket.SOCK_SEQPACKET)
        client.send(b"one")
        client.send(b"two")
        self.assertEqual([server.recv(100), server.recv(100)], [b"one", b"two"])


class TipcTest(FamilyTest):
    service, instance = 4711, 17

    def test_datagram_to_a_name(self) -> None:
        server = self.open(socket.AF_TIPC, socket.SOCK_RDM, 0, "tipc")
        server.bind(
            (socket.TIPC_ADDR_NAMESEQ, self.service, 10, 20, socket.TIPC_NODE_SCOPE),
        )
        client = self.open(socket.AF_TIPC, socket.SOCK_RDM, 0, "tipc")
        client.sendto(b"hello", (socket.TIPC_ADDR_NAME, self.service, self.instance, 0))
        message, address = server.recvfrom(100)
        self.assertEqual(message, b"hello")
        self.assertEqual(address, client.getsockname())
        self.assertEqual(address[0], socket.TIPC_ADDR_ID)
        server.sendto(b"back", address)
        self.assertEqual(client.recv(100), b"back")

    def test_stream(self) -> None:
        listener = self.open(socket.AF_TIPC, socket.SOCK_STREAM, 0, "tipc")
        sequence = (socket.TIPC_ADDR_NAMESEQ, self.service + 1, 10, 20, socket.TIPC_NODE_SCOPE)
        listener.bind(sequence)
        listener.listen()
        client = self.open(socket.AF_TIPC, socket.SOCK_STREAM, 0, "tipc")
        server = []
        thread = threading.Thread(target=lambda: server.append(listener.accept()))
        thread.start()
        client.connect((socket.TIPC_ADDR_NAME, self.service + 1, self.instance, 0))
        thread.join(TIMEOUT)
        connection, peer = server[0]
        self.addCleanup(connection.close)
        connection.settimeout(TIMEOUT)
        self.assertEqual(peer, client.getsockname())
        self.exchange(client, connection)


class QipcrtrTest(FamilyTest):
    def test_datagram(self) -> None:
        one = self.open(socket.AF_QIPCRTR, socket.SOCK_DGRAM, 0, "qrtr")
        other = self.open(socket.AF_QIPCRTR, socket.SOCK_DGRAM, 0, "qrtr")
        node = one.getsockname()[0]
        for sock in (one, other):
            sock.bind((node, 0))
        self.assertEqual(other.getsockname()[0], node)
        one.sendto(b"message", other.getsockname())
        message, address = other.recvfrom(100)
        self.assertEqual((message, address), (b"message", one.getsockname()))
        other.connect(address)
        self.assertEqual(other.getpeername(), address)
        other.send(b"answer")
        self.assertEqual(one.recvfrom(100), (b"answer", other.getsockname()))


class RdsTest(FamilyTest):
    def test_datagrams_of_two_sockets(self) -> None:
        server = self.open(socket.AF_RDS, socket.SOCK_SEQPACKET, 0, "rds")
        client = self.open(socket.AF_RDS, socket.SOCK_SEQPACKET, 0, "rds")
        self.assertEqual(client.getsockname(), (0, bytes(14)))  # bound to nothing, of no family
        for sock in (server, client):
            sock.bind(("127.0.0.1", 0))
        self.assertEqual(client.getsockname()[0], "127.0.0.1")
        client.sendto(b"hello", server.getsockname())
        self.assertEqual(server.recvfrom(100), (b"hello", client.getsockname()))
        client.sendmsg([b"in ", b"pieces"], [], 0, server.getsockname())
        message, _, _, address = server.recvmsg(100)
        self.assertEqual((message, address), (b"in pieces", client.getsockname()))


class BluetoothTest(FamilyTest):
    """Two controllers in software (bluetooth_controllers.py), and sockets that meet over them."""

    controllers: Controllers
    BDADDR_ANY = "00:00:00:00:00:00"

    def setUp(self) -> None:
        self.hci = self.bluetooth(socket.SOCK_RAW, socket.BTPROTO_HCI)
        try:
            controllers = Controllers()
        except OSError as error:
            self.absent(f"no /dev/vhci: {error.strerror}", "hci_vhci")
        self.addCleanup(controllers.close)
        self.controllers = controllers
        self.one, self.other = controllers.addresses

    def bluetooth(self, kind: int, protocol: int):  # type: ignore[no-untyped-def]
        return self.open(socket.AF_BLUETOOTH, kind, protocol, "bluetooth")

    def connected(self, kind: int, protocol: int, port: int):  # type: ignore[no-untyped-def]
        """A client on the first controller, connected to a server on the second."""
        self.controllers.up(self.hci)
        listener = self.bluetooth(kind, protocol)
        listener.bind((self.other, port))
        listener.listen()
        self.assertEqual(listener.getsockname(), (self.other, port))
        client = self.bluetooth(kind, protocol)
        client.bind((self.one, 0))
        client.connect((self.other, port))
        server, peer = self.accept(listener)
        self.assertEqual(peer[0], self.one)
        self.assertEqual(client.getpeername()[:2], (self.other, port))
        return client, server

    def test_l2cap(self) -> None:
        self.exchange(*self.connected(socket.SOCK_SEQPACKET, socket.BTPROTO_L2CAP, 0x1001))

    def test_rfcomm(self) -> None:
        self.exchange(*self.connected(socket.SOCK_STREAM, socket.BTPROTO_RFCOMM, 7))

    def test_sco(self) -> None:
        self.controllers.up(self.hci)
        listener = self.bluetooth(socket.SOCK_SEQPACKET, socket.BTPROTO_SCO)
        listener.bind(self.other.encode())
        listener.listen()
        self.assertEqual(listener.getsockname(), self.other)
        client = self.bluetooth(socket.SOCK_SEQPACKET, socket.BTPROTO_SCO)
        client.bind(self.one.encode())
        client.connect(self.other.encode())
        server, peer = self.accept(listener)
        self.assertEqual(peer, self.one)
        self.assertEqual(client.getpeername(), self.other)
        self.exchange(client, server)

    def test_hci_command_and_answer(self) -> None:
        """Read BD_ADDR on a raw socket: the controller answers with its address."""
        self.controllers.up(self.hci)
        index = self.controllers.indexes[0]
        self.hci.bind((index,))
        self.assertEqual(self.hci.getsockname(), index)
        every_event = struct.pack("=IIIH2x", 1 << 4, 0xFFFFFFFF, 0xFFFFFFFF, 0)
        self.hci.setsockopt(socket.SOL_HCI, socket.HCI_FILTER, every_event)
        self.assertEqual(len(self.hci.getsockopt(socket.SOL_HCI, socket.HCI_FILTER, 14)), 14)
        self.hci.send(struct.pack("<BHB", 1, 0x1009, 0))
        while True:
            packet, _ = self.hci.recvfrom(300)
            if packet[1] == 0x0E and packet[4:6] == struct.pack("<H", 0x1009):
                break
        self.assertEqual(packet[6:], b"\0" + bytes.fromhex(self.one.replace(":", ""))[::-1])

    def test_hci_control_channel(self) -> None:
        """Read Management Version Information, on the channel that a second item names."""
        nobody, control = 0xFFFF, 3
        self.hci.bind((nobody, control))
        self.hci.send(struct.pack("<HHH", 0x0001, nobody, 0))
        while True:
            event, index, length = struct.unpack_from("<HHH", packet := self.hci.recv(300))
            if event == 1 and packet[6:8] == b"\1\0":
                break
        self.assertEqual((index, len(packet) - 6), (nobody, length))
        self.assertEqual((packet[8], packet[9]), (0, 1))  # success, version 1


class InternetProtocolTest(FamilyTest):
    def connected(self, family: int, host: str, kind: int, protocol: int, module: str):  # type: ignore[no-untyped-def]
        listener = self.open(family, kind, protocol, module)
        listener.bind((host, 0))
        listener.listen()
        client = self.open(family, kind, protocol, module)
        client.connect(listener.getsockname())
        server, peer = self.accept(listener)
        self.assertEqual(peer[1], client.getsockname()[1])
        self.assertEqual((client.proto, server.proto), (protocol, protocol))
        return client, server

    def test_sctp_one_to_one(self) -> None:
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            with self.subTest(host=host):
                pair = self.connected(family, host, socket.SOCK_STREAM, socket.IPPROTO_SCTP, "sctp")
                self.exchange(*pair)

    def test_sctp_one_to_many(self) -> None:
        one, other = (
            self.open(socket.AF_INET, socket.SOCK_SEQPACKET, socket.IPPROTO_SCTP, "sctp")
            for _ in range(2)
        )
        for sock in (one, other):
            sock.bind(("127.0.0.1", 0))
            sock.listen()
        one.sendto(b"message", other.getsockname())
        message, address = other.recvfrom(100)
        self.assertEqual((message, address), (b"message", one.getsockname()))
        other.sendto(b"answer", address)
        message, _, flags, _ = one.recvmsg(100)
        self.assertEqual(message, b"answer")
        self.assertTrue(flags & socket.MSG_EOR)

    def test_mptcp(self) -> None:
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            with self.subTest(host=host):
                client, server = self.connected(
                    family, host, socket.SOCK_STREAM, socket.IPPROTO_MPTCP, "mptcp"
                )
                self.exchange(client, server)
                protocol = client.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL)
                self.assertEqual(protocol, socket.IPPROTO_MPTCP)

    def test_udplite(self) -> None:
        protocol = socket.IPPROTO_UDPLITE
        server, client = (
            self.open(socket.AF_INET, socket.SOCK_DGRAM, protocol, "udplite") for _ in range(2)
        )
        server.bind(("127.0.0.1", 0))
        client.setsockopt(protocol, socket.UDPLITE_SEND_CSCOV, 8)
        server.setsockopt(protocol, socket.UDPLITE_RECV_CSCOV, 8)
        self.assertEqual(client.getsockopt(protocol, socket.UDPLITE_SEND_CSCOV), 8)
        client.sendto(b"lite", server.getsockname())
        message, address = server.recvfrom(100)
        self.assertEqual((message, address[1]), (b"lite", client.getsockname()[1]))


class NetlinkTest(FamilyTest):
    RTM_NEWLINK, RTM_GETLINK, NLMSG_DONE = 16, 18, 3
    NLM_F_REQUEST, NLM_F_DUMP, IFLA_IFNAME = 1, 0x300, 3

    def test_interfaces_of_the_route_family(self) -> None:
        """A dump of the links (rtnetlink(7)) names the interfaces that if_nameindex() knows."""
        sock = self.open(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        sock.bind((0, 0))
        port, groups = sock.getsockname()
        self.assertEqual(groups, 0)
        body = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, 0, 0, 0)
        flags = self.NLM_F_REQUEST | self.NLM_F_DUMP
        head = struct.pack("=IHHII", 16 + len(body), self.RTM_GETLINK, flags, 1, port)
        sock.sendto(head + body, (0, 0))
        names, done = set(), False
        while not done:
            data, address = sock.recvfrom(65536)
            self.assertEqual(address, (0, 0))
            while data:
                length, kind = struct.unpack_from("=IH", data)
                done = done or kind == self.NLMSG_DONE
                if kind == self.RTM_NEWLINK:
                    names.add(self.link_name(data[32:length]))
                data = data[(length + 3) & ~3 :]
        self.assertEqual(names, {name for _, name in socket.if_nameindex()})

    def link_name(self, attributes: bytes) -> str:
        while attributes:
            length, kind = struct.unpack_from("=HH", attributes)
            if kind == self.IFLA_IFNAME:
                return attributes[4 : length - 1].decode()
            attributes = attributes[(length + 3) & ~3 :]
        self.fail("a link without a name")

    def test_message_between_two_sockets(self) -> None:
        one, other = (
            self.open(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_USERSOCK) for _ in range(2)
        )
        for sock in (one, other):
            sock.bind((0, 0))
        message = struct.pack("=IHHII", 21, 99, 0, 1, one.getsockname()[0]) + b"hello"
        one.sendto(message, other.getsockname())
        self.assertEqual(other.recvfrom(100), (message, one.getsockname()))


class PacketTest(FamilyTest):
    def test_frames_of_the_loopback(self) -> None:
        """A datagram that is seen as a frame, and what the address says of it."""
        protocol = 0x0800
        sniffer = self.open(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(protocol))
        sniffer.bind(("lo", protocol))
        name, bound, _, hardware, address = sniffer.getsockname()
        self.assertEqual((name, bound, hardware), ("lo", protocol, 772))  # ARPHRD_LOOPBACK
        self.assertEqual(address, bytes(6))
        receiver = self.open(socket.AF_INET, socket.SOCK_DGRAM)
        receiver.bind(("127.0.0.1", 0))
        sender = self.open(socket.AF_INET, socket.SOCK_DGRAM)
        mark = secrets.token_bytes(16)
        sender.sendto(mark, receiver.getsockname())
        while True:
            frame, source = sniffer.recvfrom(65536)
            if frame.endswith(mark) and source[2] == socket.PACKET_HOST:
                break
        self.assertEqual(source[:2], ("lo", protocol))
        self.assertEqual(receiver.recv(100), mark)

    def test_frame_with_its_own_header(self) -> None:
        protocol = 0x88B5  # IEEE 802: local experimental
        sender = self.open(socket.AF_PACKET, socket.SOCK_RAW, 0)
        receiver = self.open(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(protocol))
        for sock in (sender, receiver):
            sock.bind(("lo", protocol))
        frame = bytes(6) + b"\x02\0\0\0\0\1" + struct.pack("!H", protocol) + b"data of 60 bytes"
        sender.send(frame.ljust(60, b"."))
        received, source = receiver.recvfrom(100)
        self.assertEqual(received, frame.ljust(60, b"."))
        self.assertEqual((source[0], source[1], source[4]), ("lo", protocol, frame[6:12]))

    def test_datagram_packets_with_an_address(self) -> None:
        protocol = 0x88B5  # IEEE 802: local experimental
        one, other = (
            self.open(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(protocol)) for _ in range(2)
        )
        other.bind(("lo", protocol))
        one.sendto(b"payload", ("lo", protocol, 0, 0, bytes(6)))
        payload, source = other.recvfrom(100)
        self.assertEqual(payload, b"payload")
        self.assertEqual((source[0], source[1], source[4]), ("lo", protocol, bytes(6)))


class UnixTest(FamilyTest):
    def test_descriptors_and_abstract_names(self) -> None:
        server = self.open(socket.AF_UNIX, socket.SOCK_DGRAM)
        server.bind("")
        name = server.getsockname()
        self.assertEqual((type(name), name[:1], len(name)), (bytes, b"\0", 6))
        client = self.open(socket.AF_UNIX, socket.SOCK_DGRAM)
        client.connect(name)
        read, write = os.pipe()
        self.addCleanup(os.close, read)
        rights = array.array("i", [write])
        client.sendmsg([b"take"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        os.close(write)
        message, descriptors, _, _ = socket.recv_fds(server, 100, 2)
        self.assertEqual((message, len(descriptors)), (b"take", 1))
        os.write(descriptors[0], b"through")
        os.close(descriptors[0])
        self.assertEqual(os.read(read, 100), b"through")


if __name__ == "__main__":
    faulthandler.dump_traceback_later(300, exit=True)
    unittest.main(verbosity=2)
