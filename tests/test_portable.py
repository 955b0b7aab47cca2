"""What of the extension needs no Python: run on this machine, compiled for the others.

The address families and the core are plain C++. Here they run under the sanitizers with the
machine's compiler, and are compiled, warnings as errors, for Windows, macOS, FreeBSD and another
Linux with the headers that the PyPI package ziglang brings. Where a platform's own headers declare
an address structure, the project's declaration of it is held against theirs.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXT = ROOT / "ext"
FAMILIES = sorted((EXT / "families").glob("*.cpp"))
CORE = sorted([*(EXT / "core").glob("*.cpp"), *(EXT / "resolver").glob("syscalls_*.cpp")])
HEADERS = sorted(
    [
        *(EXT / "families").glob("*.hpp"),
        *(EXT / "core").glob("*.hpp"),
        EXT / "resolver" / "system.hpp",
    ]
)
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-fno-strict-aliasing")

# A first run on a busy machine compiles for minutes; the next ones for a second.
pytestmark = pytest.mark.timeout(600)

POSIX = {"TRACESOCK_HAVE_NET_IF_H", "TRACESOCK_HAVE_SYS_UN_H"}
LINUX = POSIX | {"TRACESOCK_HAVE_ACCEPT4", "TRACESOCK_HAVE_SENDMMSG"}

# What CMake would find on each target.
TARGETS: dict[str, set[str]] = {
    "x86_64-linux-gnu": LINUX,
    "aarch64-linux-gnu": LINUX,
    "x86_64-windows-gnu": set(),
    "aarch64-macos": POSIX | {"TRACESOCK_HAVE_SYS_KERN_CONTROL_H", "TRACESOCK_HAVE_NET_IF_DL_H"},
    "x86_64-freebsd": LINUX | {"TRACESOCK_HAVE_NET_IF_DL_H"},
}


@dataclass(frozen=True)
class Structure:
    """A structure of the project's, and the platform's own declaration of it."""

    source: str
    headers: Sequence[str]
    ours: str
    theirs: str
    fields: dict[str, str]
    same_size: bool = True
    equal: dict[str, str] = field(default_factory=dict)

    def unit(self) -> str:
        """A translation unit that compiles only where the two agree."""
        # FreeBSD's Bluetooth header warns until it is told that its new fields are known.
        lines = ["#define L2CAP_SOCKET_CHECKED", f'#include "families/{self.source}"']
        lines += [f"#include <{header}>" for header in self.headers]
        lines.append("using namespace tracesock;")
        if self.same_size:
            lines.append(f"static_assert(sizeof({self.ours}) == sizeof({self.theirs}));")
        for ours, theirs in self.fields.items():
            here, there = f"offsetof({self.ours}, {ours})", f"offsetof({self.theirs}, {theirs})"
            lines.append(f"static_assert({here} == {there});")
        lines += [f"static_assert({here} == {there});" for here, there in self.equal.items()]
        return "\n".join(lines) + "\n"


LINUX_STRUCTURES = (
    Structure(
        "netlink.cpp",
        ["linux/netlink.h"],
        "NetlinkAddress",
        "sockaddr_nl",
        {"pid": "nl_pid", "groups": "nl_groups"},
        equal={"af_netlink": "AF_NETLINK"},
    ),
    Structure(
        "packet.cpp",
        ["linux/if_packet.h"],
        "PacketAddress",
        "sockaddr_ll",
        {
            "protocol": "sll_protocol",
            "ifindex": "sll_ifindex",
            "hardware_type": "sll_hatype",
            "packet_type": "sll_pkttype",
            "address_size": "sll_halen",
            "address": "sll_addr",
        },
        same_size=False,
        equal={
            "af_packet": "AF_PACKET",
            "packet_host": "PACKET_HOST",
            "address_offset + caller_hardware_address": "sizeof(sockaddr_ll)",
        },
    ),
    Structure(
        "vsock.cpp",
        ["linux/vm_sockets.h"],
        "VsockAddress",
        "sockaddr_vm",
        {"port": "svm_port", "cid": "svm_cid", "flags": "svm_flags"},
        equal={"af_vsock": "AF_VSOCK"},
    ),
    Structure(
        "qipcrtr.cpp",
        ["linux/qrtr.h"],
        "QrtrAddress",
        "sockaddr_qrtr",
        {"node": "sq_node", "port": "sq_port"},
        equal={"af_qipcrtr": "AF_QIPCRTR"},
    ),
    Structure(
        "tipc.cpp",
        ["linux/tipc.h"],
        "TipcAddress",
        "sockaddr_tipc",
        {
            "type": "addrtype",
            "scope": "scope",
            "value": "addr.nameseq.type",
            "value[1]": "addr.nameseq.lower",
            "value[2]": "addr.nameseq.upper",
        },
        equal={
            "af_tipc": "AF_TIPC",
            "address_service_range": "TIPC_ADDR_NAMESEQ",
            "address_service": "TIPC_ADDR_NAME",
            "address_socket": "TIPC_ADDR_ID",
            "cluster_scope": "TIPC_CLUSTER_SCOPE",
            "offsetof(TipcAddress, value[0])": "offsetof(sockaddr_tipc, addr.id.ref)",
            "offsetof(TipcAddress, value[1])": "offsetof(sockaddr_tipc, addr.id.node)",
        },
    ),
    Structure(
        "alg.cpp",
        ["linux/if_alg.h"],
        "AlgAddress",
        "sockaddr_alg",
        {
            "type": "salg_type",
            "features": "salg_feat",
            "mask": "salg_mask",
            "name": "salg_name",
        },
        equal={"af_alg": "AF_ALG"},
    ),
    Structure(
        "can.cpp",
        ["linux/can.h"],
        "CanAddress",
        "sockaddr_can",
        {
            "ifindex": "can_ifindex",
            "isotp.rx_id": "can_addr.tp.rx_id",
            "isotp.tx_id": "can_addr.tp.tx_id",
            "j1939.name": "can_addr.j1939.name",
            "j1939.pgn": "can_addr.j1939.pgn",
            "j1939.address": "can_addr.j1939.addr",
        },
        equal={"af_can": "AF_CAN", "can_raw": "CAN_RAW", "can_bcm": "CAN_BCM"},
    ),
    Structure(
        "can_isotp.cpp",
        ["linux/can.h"],
        "CanAddress",
        "sockaddr_can",
        {},
        equal={"can_isotp": "CAN_ISOTP"},
    ),
    Structure(
        "can_j1939.cpp",
        ["linux/can.h"],
        "CanAddress",
        "sockaddr_can",
        {},
        equal={"can_j1939": "CAN_J1939"},
    ),
    Structure("rds.cpp", [], "sockaddr_in", "sockaddr_in", {}, equal={"af_rds": "AF_RDS"}),
    Structure(
        "bluetooth.cpp",
        [],
        "DeviceAddress",
        "unsigned char[6]",
        {},
        equal={"af_bluetooth": "AF_BLUETOOTH"},
    ),
)

FREEBSD_BLUETOOTH = [
    "sys/types.h",
    "sys/bitstring.h",
    "netgraph/ng_message.h",
    "netgraph/bluetooth/include/ng_hci.h",
    "netgraph/bluetooth/include/ng_l2cap.h",
    "netgraph/bluetooth/include/ng_bluetooth.h",
    "netgraph/bluetooth/include/ng_btsocket.h",
]

STRUCTURES: dict[str, tuple[Structure, ...]] = {
    "x86_64-linux-gnu": LINUX_STRUCTURES,
    "aarch64-linux-gnu": LINUX_STRUCTURES,
    "x86_64-freebsd": (
        Structure(
            "netlink.cpp",
            ["netlink/netlink.h"],
            "NetlinkAddress",
            "sockaddr_nl",
            {"pid": "nl_pid", "groups": "nl_groups"},
            equal={"af_netlink": "AF_NETLINK"},
        ),
        Structure(
            "divert.cpp", [], "sockaddr_in", "sockaddr_in", {}, equal={"af_divert": "AF_DIVERT"}
        ),
        Structure(
            "bluetooth_l2cap.cpp",
            FREEBSD_BLUETOOTH,
            "L2capAddress",
            "sockaddr_l2cap",
            {
                "psm": "l2cap_psm",
                "device": "l2cap_bdaddr",
                "cid": "l2cap_cid",
                "device_type": "l2cap_bdaddr_type",
            },
            equal={
                "af_bluetooth": "AF_BLUETOOTH",
                "bluetooth_l2cap": "BLUETOOTH_PROTO_L2CAP",
                "bdaddr_bredr": "BDADDR_BREDR",
            },
        ),
        Structure(
            "bluetooth_rfcomm.cpp",
            FREEBSD_BLUETOOTH,
            "RfcommAddress",
            "sockaddr_rfcomm",
            {"device": "rfcomm_bdaddr", "channel": "rfcomm_channel"},
            same_size=False,
            equal={
                "bluetooth_rfcomm": "BLUETOOTH_PROTO_RFCOMM",
                "kernel_size": "sizeof(sockaddr_rfcomm)",
            },
        ),
        Structure(
            "bluetooth_hci.cpp",
            FREEBSD_BLUETOOTH,
            "FreebsdHciAddress",
            "::sockaddr_hci",
            {"node": "hci_node"},
            equal={"bluetooth_hci": "BLUETOOTH_PROTO_HCI"},
        ),
        Structure(
            "bluetooth_sco.cpp",
            FREEBSD_BLUETOOTH,
            "ScoAddress",
            "sockaddr_sco",
            {"device": "sco_bdaddr"},
            equal={"bluetooth_sco": "BLUETOOTH_PROTO_SCO"},
        ),
    ),
    "aarch64-macos": (
        Structure(
            "system.cpp",
            ["sys/kern_control.h"],
            "ControlAddress",
            "sockaddr_ctl",
            {"system_address": "ss_sysaddr", "id": "sc_id", "unit": "sc_unit"},
            equal={"af_system": "AF_SYSTEM", "longest_name": "MAX_KCTL_NAME"},
        ),
    ),
    "x86_64-windows-gnu": (
        Structure(
            "hyperv.cpp",
            ["hvsocket.h"],
            "HypervAddress",
            "SOCKADDR_HV",
            {"vm_id": "VmId", "service_id": "ServiceId"},
            equal={"protocol_raw": "HV_PROTOCOL_RAW"},
        ),
        Structure(
            "bluetooth_rfcomm.cpp",
            ["ws2bth.h"],
            "WindowsRfcommAddress",
            "SOCKADDR_BTH",
            {"device": "btAddr", "service_class": "serviceClassId", "channel": "port"},
            equal={"af_bluetooth": "AF_BTH", "bluetooth_rfcomm": "BTHPROTO_RFCOMM"},
        ),
    ),
}


def configuration(found: set[str]) -> str:
    """config.hpp as CMake would write it for a platform on which it found `found`."""
    template = (EXT / "config.hpp.in").read_text()
    return re.sub(
        r"#cmakedefine01 (\w+)",
        lambda match: f"#define {match[1]} {int(match[1] in found)}",
        template,
    )


class Compiler:
    """Compiles into a directory, and again only what has changed.

    Raises AssertionError with the compiler's own words where it refuses.
    """

    def __init__(
        self, command: Sequence[str], program: Path, directory: Path, found: set[str]
    ) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "config.hpp").write_text(configuration(found))
        self.command = [*command, "-std=c++20", *WARNINGS, f"-I{EXT}", f"-I{directory}"]
        self.environment = {
            **os.environ,
            "ZIG_GLOBAL_CACHE_DIR": str(directory.parent / "zig"),
            "ZIG_LOCAL_CACHE_DIR": str(directory.parent / "zig"),
        }
        self.base = hashlib.sha256(repr(self.command).encode())
        self.base.update(f"{program} {program.stat().st_mtime_ns}".encode())
        for path in (*HEADERS, directory / "config.hpp"):
            self.base.update(path.read_bytes())

    def build(self, output: Path, arguments: Sequence[str], inputs: Sequence[Path]) -> Path:
        """The output of one run of the compiler, from the last time where nothing changed."""
        key = self.base.copy()
        key.update(repr(arguments).encode())
        for path in inputs:
            key.update(path.read_bytes())
        stamp = output.with_name(output.name + ".key")
        if output.exists() and stamp.exists() and stamp.read_text() == key.hexdigest():
            return output
        result = subprocess.run(
            [*self.command, *arguments, "-o", str(output)],
            capture_output=True,
            text=True,
            check=False,
            env=self.environment,
            timeout=300,
        )
        assert result.returncode == 0, result.stderr
        stamp.write_text(key.hexdigest())
        return output

    def object(self, source: Path, *arguments: str) -> Path:
        output = self.directory / f"{source.parent.name}-{source.stem}.o"
        return self.build(output, [*arguments, "-c", str(source)], [source])

    def unit(self, name: str, text: str, *arguments: str) -> Path:
        source = self.directory / f"{name}.cpp"
        source.write_text(text)
        return self.object(source, *arguments)


def in_pairs(tasks: Sequence[Callable[[], Path]]) -> list[Path]:
    """Runs the tasks two at a time."""
    with ThreadPoolExecutor(2) as pool:
        return [future.result() for future in [pool.submit(task) for task in tasks]]


@pytest.fixture(scope="session")
def cache(pytestconfig: pytest.Config) -> Path:
    return pytestconfig.cache.mkdir("portable")


@pytest.fixture(scope="session", params=list(TARGETS))
def zig(request: pytest.FixtureRequest, cache: Path) -> tuple[str, Compiler, list[str]]:
    """A target, its compiler, and the arguments that bring in the precompiled family.hpp."""
    package = importlib.util.find_spec("ziglang")
    if package is None or package.origin is None:
        pytest.skip("the cross compiler is missing: pip install ziglang")
    target: str = request.param
    # Without the last flag a precompiled header holds the dates of what it was made of.
    command = f"-m ziglang c++ -target {target} -O0 -Xclang -fno-pch-timestamp".split()
    compiler = Compiler(
        [sys.executable, *command],
        Path(package.origin),
        cache / target,
        TARGETS[target],
    )
    header = EXT / "families" / "family.hpp"
    precompiled = compiler.build(
        compiler.directory / "family.pch", ["-x", "c++-header", str(header)], [header]
    )
    return target, compiler, ["-include-pch", str(precompiled)]


def test_the_families_run_without_python_under_the_sanitizers(cache: Path) -> None:
    """ext/tests/families_test.cpp: round trips, refusals and fuzzed addresses."""
    gcc = shutil.which("g++")
    if gcc is None:
        pytest.skip("no g++ here (Debian: apt install g++)")
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    compiler = Compiler([gcc, "-O0", "-g1", *sanitizers], Path(gcc), cache / "sanitizers", LINUX)
    try:
        compiler.unit("probe", "int main() {}\n")
        compiler.build(compiler.directory / "probe", [str(compiler.directory / "probe.cpp")], [])
    except AssertionError:
        pytest.skip("this g++ has no sanitizers (Debian: apt install libasan8 libubsan1)")
    sources = [*FAMILIES, EXT / "core" / "syscalls_posix.cpp", EXT / "tests" / "families_test.cpp"]
    # The longest first.
    sources.reverse()
    objects = in_pairs([partial(compiler.object, source) for source in sources])
    program = compiler.build(
        compiler.directory / "families_test", [str(path) for path in objects], objects
    )
    result = subprocess.run(
        [str(program)], capture_output=True, text=True, check=False, timeout=100
    )
    assert result.returncode == 0, result.stdout + result.stderr
    rows, named, fuzzed, failed = map(int, re.findall(r"\d+", result.stdout))
    assert failed == 0
    assert rows >= 20
    assert named >= 500
    assert fuzzed >= 200_000


def test_compiles_for(zig: tuple[str, Compiler, list[str]]) -> None:
    """Every file of the core, the families and the resolver's system calls."""
    _, compiler, precompiled = zig
    objects = in_pairs(
        [partial(compiler.object, source, *precompiled) for source in FAMILIES]
        + [partial(compiler.object, source) for source in CORE]
    )
    assert len(objects) == len(FAMILIES) + len(CORE)
    # The headers of the core that no file of it needs.
    compiler.unit(
        "core_headers",
        "".join(f'#include "core/{path.name}"\n' for path in sorted((EXT / "core").glob("*.hpp"))),
    )


def test_structures_are_those_of_the_platforms_headers(
    zig: tuple[str, Compiler, list[str]],
) -> None:
    target, compiler, precompiled = zig
    in_pairs(
        [
            partial(
                compiler.unit,
                f"abi-{structure.source.removesuffix('.cpp')}",
                structure.unit(),
                *precompiled,
            )
            for structure in STRUCTURES[target]
        ]
    )


def test_a_wrong_structure_would_be_noticed(zig: tuple[str, Compiler, list[str]]) -> None:
    """The comparison with the headers can fail."""
    target, compiler, precompiled = zig
    right = STRUCTURES[target][0]
    (one, its), (another, others), *_ = right.fields.items()
    wrong = replace(right, fields={one: others, another: its})
    with pytest.raises(AssertionError, match="static assertion failed"):
        compiler.unit("abi-wrong", wrong.unit(), *precompiled)


def test_no_python_and_no_platform_conditions_outside_their_places() -> None:
    """Python stays out of the portable parts; `#if` stays in config, table and syscalls."""
    for path in [*FAMILIES, *CORE, *HEADERS, EXT / "tests" / "families_test.cpp"]:
        text = path.read_text()
        where = path.relative_to(ROOT)
        assert not re.search(r"#\s*include\s*[<\"](Python\.h|nanobind)", text), where
        assert not re.search(r"#\s*include\s*<(linux|bluetooth|netpacket)/", text), where
        if path.name != "table.cpp" and not path.name.startswith("syscalls"):
            assert not re.search(r"^\s*#\s*(if|ifdef|ifndef|elif)\b", text, re.MULTILINE), where


def test_every_row_is_in_the_table() -> None:
    """A family's file that the table does not name would be dead code."""
    table = (EXT / "families" / "table.cpp").read_text()
    defined: set[str] = set()
    for path in FAMILIES:
        defined |= set(
            re.findall(r"^constinit const Family (\w+)\{", path.read_text(), re.MULTILINE)
        )
    listed = set(re.findall(r"&(\w+_family)\b", table))
    # The table's own, for every family that it has no row for.
    others = {"unknown_family"}
    assert defined - others == listed - others
