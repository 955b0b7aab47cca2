"""What makes the virtual machine, as far as it needs no virtual machine."""

from __future__ import annotations

import importlib.util
import lzma
import os
import pathlib
import shutil
import struct
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
spec = importlib.util.spec_from_file_location("tracesock_kernel_vm", HERE / "vm.py")
assert spec is not None and spec.loader is not None
vm = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = vm
spec.loader.exec_module(vm)


def kernel_image(payload: bytes) -> bytes:
    """A bzImage of four set-up sectors, with the payload 96 bytes after them."""
    head = bytearray(5 * 512)
    head[0x1F1] = 4
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", head, 0x248, 96, len(payload))
    return bytes(head) + bytes(96) + payload + b"trailer"


def test_the_kernel_comes_out_of_its_image() -> None:
    kernel = b"\x7fELF" + os.urandom(5000)
    payload = lzma.compress(kernel) + struct.pack("<I", len(kernel))
    assert vm.extract_kernel(kernel_image(payload)) == kernel


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"", "no bzImage"),
        (bytes(4000), "no bzImage"),
        (kernel_image(b"\x1f\x8b" + bytes(100)), "not xz"),
    ],
)
def test_another_image_is_refused(image: bytes, message: str) -> None:
    with pytest.raises(vm.KernelError, match=message):
        vm.extract_kernel(image)


def test_the_archive_is_one_that_cpio_reads(tmp_path: pathlib.Path) -> None:
    cpio = [shutil.which("cpio")] if shutil.which("cpio") else [shutil.which("busybox"), "cpio"]
    if cpio[0] is None:
        pytest.skip("neither cpio nor busybox here: apt install cpio")
    files = [
        ("bin", 0o040755, b""),
        ("bin/a", 0o100755, b"abc"),
        ("b", 0o100644, bytes(range(256))),
    ]
    archive = vm.cpio_archive(files)
    command = [*cpio, "-t"]
    names = subprocess.run(command, input=archive, capture_output=True, check=True).stdout
    assert names.split() == [b"bin", b"bin/a", b"b", b"dev/console"]
    command = [*cpio, "-i", "bin", "bin/a", "b"]
    subprocess.run(command, input=archive, cwd=tmp_path, capture_output=True, check=True)
    assert (tmp_path / "b").read_bytes() == bytes(range(256))
    assert (tmp_path / "bin/a").read_bytes() == b"abc"
    assert os.access(tmp_path / "bin/a", os.X_OK)


def test_a_script_runs_all_and_keeps_the_failure(tmp_path: pathlib.Path) -> None:
    marker = tmp_path / "it's run"
    commands = [["sh", "-c", "exit 7"], ["touch", str(marker)]]
    script = vm.script_of(vm.Job("name", pathlib.Path("/"), commands))
    assert subprocess.run(["sh", "-c", script]).returncode == 7
    assert marker.exists()


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vm, "find_command", lambda name: None)
    assert "qemu-system-x86" in vm.missing_packages()
    assert "debootstrap" in vm.missing_packages()
    assert "debootstrap" not in vm.missing_packages(with_sid=False)
    with pytest.raises(vm.KernelError, match="debootstrap"):
        monkeypatch.setattr(vm, "CACHE", pathlib.Path("/nonexistent"))
        vm.prepare_sid()


def test_a_failing_command_is_quoted() -> None:
    with pytest.raises(vm.KernelError, match=r"(?s)failed with status 3:.*the reason"):
        vm.call("sh", "-c", "echo the reason; exit 3")


def test_a_command_that_takes_too_long_is_ended_and_quoted() -> None:
    with pytest.raises(vm.KernelError, match=r"(?s)not done after 1 s:.*the beginning"):
        vm.call("sh", "-c", "echo the beginning; exec sleep 600", timeout=1.0)


def test_without_the_sid_the_other_jobs_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    def fail() -> pathlib.Path:
        raise vm.KernelError("the Debian sid could not be made: no network")

    here, there = pathlib.Path("/"), tmp_path / "sid"
    jobs = [vm.Job("families-3.11", here, []), vm.Job("families-3.14", there, [])]
    ran: list[str] = []
    monkeypatch.setattr(vm, "plan", lambda mode: jobs)
    monkeypatch.setattr(vm, "missing_packages", lambda with_sid: [])
    monkeypatch.setattr(vm, "prepare_kernel", lambda: None)
    monkeypatch.setattr(vm, "prepare_sid", fail)
    monkeypatch.setattr(vm, "run_job", lambda job: ran.append(job.name) or True)
    assert vm.run_all(vm.parse(["all", "--mode", "stock"])) == 1
    told = capsys.readouterr().out
    assert ran == ["families-3.11"]
    assert "no network" in told
    assert "1 of 2 passed" in told
    assert "not run: families-3.14" in told
