"""Boots Debian's kernel in QEMU and runs jobs on it, with this machine's own tree as the root.

The kernel of a container or a cloud machine often has no CAN, TIPC, Bluetooth, AF_ALG, RDS or
SCTP; Debian's has all of them as modules, and QEMU boots it in software, without root.

    python3 tests/kernel/vm.py all                     what `make test-kernel` runs
    python3 tests/kernel/vm.py all --only families-3.11
    python3 tests/kernel/vm.py jobs                    their names
    python3 tests/kernel/vm.py run -- python3 -c 'import os; print(os.uname())'
    python3 tests/kernel/vm.py missing                 what has to be installed first

Needs the standard library only. What is downloaded and built stays in build/kernel.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import dataclasses
import fcntl
import fnmatch
import hashlib
import importlib.util
import json
import lzma
import os
import pathlib
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import tomllib
import types
from collections.abc import Iterator

HERE = pathlib.Path(__file__).resolve().parent
PROJECT = HERE.parent.parent
CACHE = PROJECT / "build" / "kernel"
PACKAGES = CACHE / "packages-3.14"

BOOT_MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
FAMILY_MODULES = (
    *("vcan", "can-raw", "can-bcm", "can-isotp", "can-j1939", "tipc", "rds", "qrtr", "sctp"),
    *("vsock_loopback", "bluetooth", "rfcomm", "hci_vhci", "xfrm_user", "crypto_user"),
    *("af_alg", "algif_hash", "algif_skcipher", "algif_aead", "algif_rng"),
    *("sha256_generic", "sha1_generic", "hmac", "aes_generic", "cbc", "ctr"),
    *("ghash_generic", "gcm", "drbg"),
)  # rds without rds_tcp, which would take 127.0.0.1 over from RDS's own loopback

# What the boot needs from the machine: command, Debian package.
COMMANDS = (
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("apt-get", "apt"),
    ("dpkg", "dpkg"),
    ("depmod", "kmod"),
    ("modprobe", "kmod"),
    ("busybox", "busybox-static"),
    ("strip", "binutils"),
)
SID_COMMANDS = (("debootstrap", "debootstrap"), ("unshare", "util-linux"))
ATTEMPTS = 3  # at a download
DOWNLOAD_LIMIT = 600.0  # seconds of one
SID_PACKAGES = (
    "python3.14 libpython3.14-testsuite python3.14-dev g++ cmake ninja-build openssl iproute2"
)

KERNEL_ARGUMENTS = (
    "console=ttyS0 mitigations=off cryptomgr.notests tsc=reliable no_timer_check quiet "
    "panic=-1 random.trust_cpu=on"
)


RUNNING: set[subprocess.Popen[bytes]] = set()


class KernelError(Exception):
    """The virtual machine cannot be made or did not run; the text says why."""


def find_command(name: str) -> str | None:
    """The path of a command; /sbin counts, which is not in an ordinary user's PATH."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def missing_packages(with_sid: bool = True) -> list[str]:
    """The Debian packages that have to be installed before the machine can boot."""
    wanted = COMMANDS + (SID_COMMANDS if with_sid else ())
    missing = [package for command, package in wanted if find_command(command) is None]
    return list(dict.fromkeys(missing))


def call(
    *command: str | os.PathLike[str],
    cwd: pathlib.Path | None = None,
    timeout: float | None = None,
) -> str:
    """Runs a command and returns its output; timeout is in seconds.

    Raises KernelError, with the end of what the command said, if it fails or takes longer.
    """
    words = [os.fspath(word) for word in command]
    words[0] = find_command(words[0]) or words[0]
    try:
        done = subprocess.run(
            words,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=os.environ | {"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
            timeout=timeout,
        )
    except OSError as error:
        raise KernelError(f"cannot run {words[0]}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        said = error.stdout or ""
        text = said.decode(errors="replace") if isinstance(said, bytes) else said
        raise KernelError(
            f"{shlex.join(words)} was not done after {timeout:.0f} s:\n{end_of(text)}"
        ) from error
    if done.returncode:
        raise KernelError(
            f"{shlex.join(words)} failed with status {done.returncode}:\n{end_of(done.stdout)}"
        )
    return done.stdout


def end_of(text: str) -> str:
    """The last lines of what a command said."""
    return "\n".join(text.strip().splitlines()[-8:])


# The kernel


def kernel_package() -> str:
    """The package that linux-image-amd64 stands for, for example linux-image-6.1.0-56-amd64."""
    for line in call("apt-cache", "depends", "linux-image-amd64").splitlines():
        name = line.strip().removeprefix("Depends:").strip()
        if name.startswith("linux-image-") and name != "linux-image-amd64":
            return name
    raise KernelError(
        "apt knows no linux-image-amd64: run apt-get update on a Debian machine (amd64)"
    )


def extract_kernel(image: bytes) -> bytes:
    """The ELF kernel inside a bzImage whose payload is xz.

    The fields are those of Documentation/arch/x86/boot.rst in the kernel: setup_sects at 0x1f1,
    payload_offset and payload_length at 0x248.
    """
    if image[0x202:0x206] != b"HdrS":
        raise KernelError("the kernel image is no bzImage")
    sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (sectors + 1) * 512 + offset
    payload = image[start : start + length]
    if not payload.startswith(b"\xfd7zXZ\0"):
        raise KernelError(f"the kernel's payload is not xz, it begins with {payload[:6]!r}")
    return lzma.LZMADecompressor().decompress(payload)  # what follows the stream is its size


def cpio_archive(entries: list[tuple[str, int, bytes]]) -> bytes:
    """An initramfs in cpio's "newc" format out of (name, mode, data); devices carry no data.

    The character device dev/console (5, 1), which the kernel wants before /dev is mounted, is
    added: as an entry of the archive it needs no root to make.
    """
    out = bytearray()
    nodes = [(name, mode, data, 0, 0) for name, mode, data in entries]
    nodes.append(("dev/console", 0o020600, b"", 5, 1))
    nodes.append(("TRAILER!!!", 0, b"", 0, 0))
    for number, (name, mode, data, major, minor) in enumerate(nodes, 1):
        encoded = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(encoded), 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
        out += bytes(-len(out) % 4) + data
        out += bytes(-len(out) % 4)
    return bytes(out)


def module_files(tree: pathlib.Path, release: str) -> list[pathlib.Path]:
    """The files of the modules and all that they need, in the order in which they load."""
    call("depmod", "-b", tree, release)
    files: dict[pathlib.Path, None] = {}
    for module in (*BOOT_MODULES, *FAMILY_MODULES):
        for line in call("modprobe", "--show-depends", "-d", tree, "-S", release, module).split(
            "\n"
        ):
            if line.startswith("insmod "):
                path = line.split()[1]
                files[pathlib.Path(path)] = None
    return list(files)


def prepare_kernel() -> tuple[pathlib.Path, pathlib.Path]:
    """Downloads and unpacks the kernel, once; returns the paths of the kernel and the initramfs.

    Raises KernelError if something is missing or the download fails.
    """
    kernel, initramfs, stamp = CACHE / "vmlinux", CACHE / "initramfs.cpio", CACHE / "kernel.json"
    recipe = hashlib.sha256()
    for path in (HERE / "init", HERE / "vm.py"):
        recipe.update(path.read_bytes())
    if stamp.exists() and kernel.exists() and initramfs.exists():
        known = json.loads(stamp.read_text())
        if known["recipe"] == recipe.hexdigest():
            return kernel, initramfs
    missing = missing_packages(with_sid=False)
    if missing:
        raise KernelError(f"install {' '.join(missing)}: sudo tests/kernel/prepare.sh does it")
    CACHE.mkdir(parents=True, exist_ok=True)
    package = kernel_package()
    downloaded = sorted(CACHE.glob(f"{package}_*.deb"))
    if not downloaded:
        print(f"downloading {package}", flush=True)
        retries = ("-o", f"Acquire::Retries={ATTEMPTS}")
        try:
            call("apt-get", "download", "-qq", *retries, package, cwd=CACHE, timeout=DOWNLOAD_LIMIT)
        except KernelError as error:
            raise KernelError(f"Debian's kernel could not be downloaded: {error}") from error
        downloaded = sorted(CACHE.glob(f"{package}_*.deb"))
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        tree = pathlib.Path(name)
        call("dpkg", "-x", downloaded[-1], tree)
        release = package.removeprefix("linux-image-")
        image = extract_kernel((tree / f"boot/vmlinuz-{release}").read_bytes())
        busybox = find_command("busybox")
        assert busybox is not None
        entries = [(name, 0o040755, b"") for name in ("bin", "dev", "modules")] + [
            ("init", 0o100755, (HERE / "init").read_bytes()),
            ("bin/busybox", 0o100755, pathlib.Path(busybox).read_bytes()),
        ]
        order = []
        for number, path in enumerate(module_files(tree, release)):
            plain = tree / "module.ko"
            call("strip", "--strip-debug", "-o", plain, path)
            order.append(f"{number:02}-{path.name}")
            entries.append((f"modules/{order[-1]}", 0o100644, plain.read_bytes()))
        entries.append(("modules/order", 0o100644, "".join(f"{n}\n" for n in order).encode()))
    kernel.write_bytes(image)
    initramfs.write_bytes(cpio_archive(entries))
    stamp.write_text(json.dumps({"recipe": recipe.hexdigest(), "package": downloaded[-1].name}))
    return kernel, initramfs


@dataclasses.dataclass
class Outcome:
    """What one boot left behind: exit status (None if it gave none), seconds, output."""

    status: int | None
    seconds: float
    output: str
    console: str


def boot(
    script: str, results: pathlib.Path, root: pathlib.Path, timeout: float, memory: int = 2048
) -> Outcome:
    """Boots the kernel, runs a shell script in it, returns when it has ended.

    The guest sees `root` under an overlay in memory, the project read-only at its own path, and
    `results` as /results, writable. timeout is in seconds, memory in MiB. Raises KernelError if
    the kernel or QEMU is missing.
    """
    kernel, initramfs = prepare_kernel()
    qemu = find_command("qemu-system-x86_64")
    if qemu is None:
        raise KernelError("install qemu-system-x86: sudo tests/kernel/prepare.sh does it")
    results.mkdir(parents=True, exist_ok=True)
    for stale in ("status", "output.txt"):
        (results / stale).unlink(missing_ok=True)
    (results / "job.sh").write_text(script)
    (results / "project").write_text(str(PROJECT))
    shares = []
    for tag, path, mode in (
        ("root", root, ",readonly=on"),
        ("project", PROJECT, ",readonly=on"),
        ("results", results, ""),
    ):
        quoted = str(path).replace(",", ",,")
        shares += [
            "-fsdev",
            f"local,id={tag},path={quoted},security_model=none,multidevs=remap{mode}",
            "-device",
            f"virtio-9p-pci,fsdev={tag},mount_tag={tag}",
        ]
    command = [
        *(qemu, "-accel", "tcg", "-cpu", "max", "-machine", "q35", "-m", str(memory)),
        *("-smp", "1", "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"),
        *("-kernel", str(kernel), "-initrd", str(initramfs)),
        *("-append", KERNEL_ARGUMENTS),
        *shares,
    ]
    started = time.monotonic()
    with (results / "console.txt").open("wb") as console:
        machine = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT
        )
        RUNNING.add(machine)
        try:
            machine.wait(timeout)
        except subprocess.TimeoutExpired:
            pass
        finally:
            machine.kill()
            machine.wait()
            RUNNING.discard(machine)
    status = output = None
    if (results / "status").exists():
        status = int((results / "status").read_text())
    if (results / "output.txt").exists():
        output = (results / "output.txt").read_text(errors="replace")
    return Outcome(
        status,
        time.monotonic() - started,
        output or "",
        (results / "console.txt").read_text(errors="replace"),
    )


def run_in_root(script: str, results: pathlib.Path, root: pathlib.Path, timeout: float) -> Outcome:
    """Runs a shell script with `root` as its root, on this machine's kernel: what needs no other
    one, and is ten times as fast so. Needs root; what is mounted for it goes with it.

    The script sees the project read-only at its own path. timeout is in seconds.
    """
    results.mkdir(parents=True, exist_ok=True)
    inside = root / str(PROJECT).lstrip("/")
    inside.mkdir(parents=True, exist_ok=True)
    mounts = [
        ["mount", "-t", "proc", "proc", str(root / "proc")],
        ["mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", str(root / "tmp")],
        ["mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", str(root / "dev/shm")],
        ["mkdir", "-p", str(inside)],  # once more, for a project below /tmp
        ["mount", "--bind", str(PROJECT), str(inside)],
        ["mount", "-o", "remount,bind,ro", str(inside)],
    ]
    plain = ["env", "-i", "PATH=/usr/bin:/bin:/usr/sbin:/sbin", "HOME=/root", "LANG=C.UTF-8"]
    enter = ["exec", "chroot", str(root), *plain, "PYTHONDONTWRITEBYTECODE=1", "sh", "-c", script]
    lines = " &&\n".join(shlex.join(words) for words in [*mounts, enter])
    started = time.monotonic()
    with (results / "output.txt").open("wb") as output:
        process = subprocess.Popen(
            # In a process namespace of its own, whose end is that of all in it.
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", lines],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a test may signal its process group
        )
        RUNNING.add(process)
        status: int | None = None
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            pass
        finally:
            process.kill()
            process.wait()
            RUNNING.discard(process)
    text = (results / "output.txt").read_text(errors="replace")
    return Outcome(status, time.monotonic() - started, text, "")


# The chroot with Python 3.14


def prepare_sid() -> pathlib.Path:
    """Makes a Debian sid with Python 3.14, its tests and a compiler, once; returns its path.

    Raises KernelError if something is missing: debootstrap, root, the network.
    """
    root, stamp = CACHE / "sid", CACHE / "sid.json"
    recipe = {"packages": SID_PACKAGES}
    if stamp.exists() and json.loads(stamp.read_text()) == recipe:
        return root
    debootstrap = find_command("debootstrap")
    if debootstrap is None:
        raise KernelError("install debootstrap: sudo tests/kernel/prepare.sh does it")
    if os.geteuid() != 0:
        raise KernelError("debootstrap needs root: run `sudo make test-kernel` once")
    print("making a Debian sid with Python 3.14, some minutes the first time", flush=True)
    for left in reversed(range(ATTEMPTS)):
        stamp.unlink(missing_ok=True)
        if root.exists():
            shutil.rmtree(root)
        quick = root / "etc/dpkg/dpkg.cfg.d/unsafe-io"  # no fsync for each file
        quick.parent.mkdir(parents=True)
        quick.write_text("force-unsafe-io\n")
        packages = ",".join(SID_PACKAGES.split())
        # In namespaces of its own: what it mounts and starts goes with it, whatever its end is.
        command = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        command += [debootstrap, "--variant=minbase", f"--include={packages}", "sid"]
        try:
            call(*command, root, timeout=DOWNLOAD_LIMIT)
            break
        except KernelError as error:
            if not left:
                raise KernelError(
                    f"the Debian sid with Python 3.14 could not be made: {error}"
                ) from error
            print(f"once more: {error}", flush=True)
    shutil.rmtree(root / "var/cache/apt", ignore_errors=True)
    stamp.write_text(json.dumps(recipe))
    return root


def build_in_sid(root: pathlib.Path) -> None:
    """Builds the extension for Python 3.14 inside the chroot, and puts it beside the sources.

    The sources are copied in, with their times, so that only what has changed is compiled.
    Raises KernelError with the compiler's words if it fails.
    """
    tree = root / "build/tracesock"
    tree.mkdir(parents=True, exist_ok=True)
    for name in ("CMakeLists.txt", "pyproject.toml"):
        shutil.copy2(PROJECT / name, tree / name)
    kept = {path.relative_to(PROJECT) for path in (PROJECT / "ext").rglob("*") if path.is_file()}
    for path in [p for p in (tree / "ext").rglob("*") if p.is_file()]:
        if path.relative_to(tree) not in kept:
            path.unlink()
    shutil.copytree(PROJECT / "ext", tree / "ext", dirs_exist_ok=True)
    packages = root / "usr/local/lib/python3.14/dist-packages"
    shutil.copytree(find_nanobind(), packages / "nanobind", dirs_exist_ok=True)
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    # Without this machine's environment: what it says of compilers is not in there.
    clean = ("/usr/bin/env", "-i", "-C", "/build/tracesock", "LC_ALL=C.UTF-8")
    inside = ("chroot", str(root), *clean, "PATH=/usr/bin:/bin:/usr/sbin:/sbin")
    call(
        *(*inside, "cmake", "-G", "Ninja", "-S", ".", "-B", "build", "--log-level=WARNING"),
        *("-DPython_EXECUTABLE=/usr/bin/python3.14", f"-DSKBUILD_PROJECT_VERSION={version}"),
    )
    print("building the extension for Python 3.14 in the sid", flush=True)
    call(*inside, "cmake", "--build", "build")
    for built in (tree / "build").glob("_native.*.so"):
        target = PROJECT / "tracesock" / built.name
        if not target.exists() or target.read_bytes() != built.read_bytes():
            fresh = target.with_suffix(".new")
            shutil.copy2(built, fresh)
            fresh.replace(target)


def find_nanobind() -> pathlib.Path:
    """The nanobind package of the project's environment or of this interpreter."""
    places = [*sorted((PROJECT / ".venv/lib").glob("python3.*/site-packages/nanobind"))]
    spec = importlib.util.find_spec("nanobind")
    if spec is not None and spec.origin is not None:
        places.append(pathlib.Path(spec.origin).parent)
    if not places:
        raise KernelError("nanobind is missing: `make install` brings it")
    return places[0]


def prepare_packages() -> None:
    """Installs what the core's tests import into PACKAGES, for Python 3.14, once.

    Raises KernelError with pip's words if it fails.
    """
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = project["dependencies"] + extras["otlp"]
    wanted += [name for name in extras["dev"] if name.startswith(("pytest", "hypothesis"))]
    stamp = PACKAGES / "wanted.json"
    if stamp.exists() and json.loads(stamp.read_text()) == wanted:
        return
    if PACKAGES.exists():
        shutil.rmtree(PACKAGES)
    beside = PROJECT / ".venv/bin/python"
    python = str(beside) if beside.exists() else sys.executable
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    target = ("--target", PACKAGES, "--python-version", "3.14", "--only-binary=:all:")
    try:
        call(*pip, *target, *wanted, timeout=DOWNLOAD_LIMIT)
    except KernelError as error:
        raise KernelError(f"packages for Python 3.14 could not be installed: {error}") from error
    stamp.write_text(json.dumps(wanted))


# The jobs


@dataclasses.dataclass
class Job:
    """One boot, or one change of root: what runs in it, on which root; timeout in seconds."""

    name: str
    root: pathlib.Path
    commands: list[list[str]]
    timeout: float = 1200.0
    booted: bool = True


# Test classes of test_socket that must have run in the machine, or a module was not loaded.
REQUIRED_CLASSES = (
    *("BasicCANTest", "CANTest", "ISOTPTest", "J1939Test", "BasicRDSTest", "BasicQIPCRTRTest"),
    *("BasicVSOCKTest", "ThreadedVSOCKSocketStreamTest", "LinuxKernelCryptoAPI"),
    *("TIPCTest", "TIPCThreadableTest", "BasicUDPLITETest"),
    *("SendmsgSCTPStreamTest", "RecvmsgSCTPStreamTest"),
)


# The tests of the core that need no compiler and no tool of the build: they run on Python 3.14 too,
# which the ordinary run may not have.
CORE_TESTS = sorted(
    path
    for path in (PROJECT / "tests").glob("test_*.py")
    if path.stem not in ("test_make", "test_portable", "test_stub")
)


def load_runner() -> types.ModuleType:
    """tests/conformance/run.py as a module."""
    path = PROJECT / "tests/conformance/run.py"
    spec = importlib.util.spec_from_file_location("tracesock_conformance_run", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def plan(mode: str) -> list[Job]:
    """The boots of `all`: the families and test_socket on this machine's oldest and newest
    Python that has CPython's tests, and on Python 3.14 in a Debian sid; there the core's own tests
    as well."""
    runner = load_runner()
    found = runner.find_interpreters().values()
    here = [interpreter for interpreter in found if not interpreter.python.startswith("3.14")]
    pythons = {i.python: (pathlib.Path("/"), i.executable) for i in (here[:1] + here[-1:])}
    pythons["3.14"] = (CACHE / "sid", "/usr/bin/python3.14")
    jobs = []
    for python, (root, executable) in pythons.items():
        families = ["env", "TRACESOCK_REQUIRE_FAMILIES=1"]
        if mode == "stock":
            families.append("TRACESOCK_TEST_MODULE=socket")
        families += [executable, str(HERE / "test_families.py")]
        conformance = [executable, str(PROJECT / "tests/conformance/run.py"), "--mode", mode]
        conformance += ["--timeout", "120", "--total-timeout", "2000"]
        conformance += ["--stock-cache", "/results"]
        everything = [*conformance, "--json", "/results/test_socket.json"]
        everything += ["--exclude", "*.RDSTest.*"]
        # With a controller, the tests that bind to one run as well.
        everything[:0] = [executable, str(HERE / "bluetooth_controllers.py")]
        for name in REQUIRED_CLASSES:
            everything += ["--require", name]
        # After BasicRDSTest, RDSTest hangs, on stock as well: a boot of its own.
        rds = [*conformance, "--match", "*.RDSTest.*", "--require", "RDSTest"]
        rds += ["--json", "/results/rds.json"]
        jobs.append(Job(f"test_socket-{python}", root, [everything], 4000))
        jobs.append(Job(f"rds-{python}", root, [rds], 1200))
        jobs.append(Job(f"families-{python}", root, [families], 1200))
    if mode != "stock":
        pytest = ["env", "-C", str(PROJECT), f"PYTHONPATH={PACKAGES}", "/usr/bin/python3.14"]
        pytest += ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "timeout=900"]
        # Half of these meet a family that only the virtual machine has.
        jobs[-1].commands.append([*pytest, "tests/test_families.py"])
        core = [str(path.relative_to(PROJECT)) for path in CORE_TESTS]
        jobs.append(Job("core-3.14", CACHE / "sid", [[*pytest, *core]], 2400, booted=False))
    return jobs


def script_of(job: Job) -> str:
    """The shell script of a job: all its commands run, the first failure is its status."""
    lines = ["cd /tmp", "status=0"]
    for command in job.commands:
        lines.append(f"{shlex.join(command)} || status=$?")
    return "\n".join([*lines, "exit $status", ""])


def run_job(job: Job) -> bool:
    """Boots a job, prints what came of it, returns whether all is well."""
    results = CACHE / "results" / job.name
    run = boot if job.booted else run_in_root
    outcome = run(script_of(job), results, job.root, job.timeout)
    good = outcome.status == 0
    output = outcome.output.rstrip()
    if job.name.startswith("families"):  # one line a test stays in the results
        _, bar, failures = output.partition("\n" + "=" * 70)
        output = bar + failures if bar else "\n".join(output.splitlines()[-3:])
    lines = [f"{job.name}: {'passed' if good else 'FAILED'}  ({outcome.seconds:.0f} s)"]
    if outcome.status is None:
        lines.append(f"there was no exit status within {job.timeout:.0f} s; its console:")
        lines.append(outcome.console[-3000:].rstrip())
    lines += output.splitlines()
    print("\n  ".join(lines), flush=True)
    return good


def run_all(arguments: argparse.Namespace) -> int:
    """Prepares and runs the jobs, as many side by side as there are processors, at most two."""
    chosen = [
        job
        for job in plan(arguments.mode)
        if not arguments.only or any(fnmatch.fnmatch(job.name, p) for p in arguments.only)
    ]
    if not chosen:
        raise KernelError(f"no such job; there are {', '.join(j.name for j in plan('both'))}")
    with_sid = any(job.root != pathlib.Path("/") for job in chosen)
    missing = missing_packages(with_sid)
    if missing:
        raise KernelError(f"install {' '.join(missing)}: sudo tests/kernel/prepare.sh does it")
    prepare_kernel()
    not_run: list[str] = []
    if with_sid:
        try:
            root = prepare_sid()
            if arguments.mode != "stock":
                build_in_sid(root)
                prepare_packages()
        except KernelError as error:
            print(f"test-kernel: {error}", flush=True)
            # The others need none of it.
            not_run = [job.name for job in chosen if job.root != pathlib.Path("/")]
            chosen = [job for job in chosen if job.name not in not_run]
    if arguments.mode != "stock":
        runner = load_runner()
        wanted = {job.name.rpartition("-")[2] for job in chosen} - {"3.14"}
        for python, interpreter in runner.find_interpreters().items():
            if python in wanted:
                runner.build_native(interpreter)
    side_by_side = max(1, min(2, os.cpu_count() or 1))
    with concurrent.futures.ThreadPoolExecutor(side_by_side) as pool:
        results = dict(zip([job.name for job in chosen], pool.map(run_job, chosen), strict=True))
    failed = [name for name, good in results.items() if not good]
    passed = len(results) - len(failed)
    print(f"{passed} of {len(results) + len(not_run)} passed", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}; see {CACHE / 'results'}")
    if not_run:
        print(f"not run: {', '.join(not_run)}")
    return 1 if failed or not_run else 0


def run_one(arguments: argparse.Namespace) -> int:
    """Runs one command in the machine, with its output here."""
    root = prepare_sid() if arguments.sid else pathlib.Path("/")
    job = Job("run", root, [arguments.command], arguments.timeout)
    outcome = boot(script_of(job), CACHE / "results" / job.name, root, job.timeout)
    sys.stdout.write(outcome.output)
    if outcome.status is None:
        raise KernelError(f"the machine gave no exit status; its console:\n{outcome.console}")
    return outcome.status


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="vm.py", description="tests on Debian's kernel in QEMU")
    commands = parser.add_subparsers(dest="action", required=True)
    every = commands.add_parser("all", help="all jobs: what `make test-kernel` runs")
    every.add_argument("--only", action="append", default=[], metavar="PATTERN", help="these jobs")
    every.add_argument("--mode", choices=("both", "stock", "tracesock"), default="both")
    commands.add_parser("jobs", help="name the jobs")
    commands.add_parser("missing", help="name the Debian packages to install; status 1 if any")
    one = commands.add_parser("run", help="run one command in the machine")
    one.add_argument("--sid", action="store_true", help="in the Debian sid with Python 3.14")
    one.add_argument("--timeout", type=float, default=300.0, help="seconds")
    one.add_argument("command", nargs="+", help="after --")
    return parser.parse_args(arguments)


def end_machines(number: int, _: object) -> None:
    """Takes the machines along when this process is told to end."""
    for machine in list(RUNNING):
        machine.kill()
    os._exit(128 + number)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Holds the cache for this process. Raises KernelError if another has it."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise KernelError(f"another run uses {CACHE}; wait for its end") from None
        yield


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = parse(arguments)
    signal.signal(signal.SIGTERM, end_machines)
    try:
        match options.action:
            case "missing":
                missing = missing_packages()
                print("\n".join(missing), end="\n" if missing else "")
                return int(bool(missing))
            case "jobs":
                print("\n".join(job.name for job in plan("both")))
                return 0
        with alone():
            return run_one(options) if options.action == "run" else run_all(options)
    except KernelError as error:
        print(f"test-kernel: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
