"""A certificate for TLS tests, made when they run."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # for `support`


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a file with a key and a self-signed certificate for `localhost`."""
    if shutil.which("openssl") is None:
        pytest.skip("the openssl command is missing: install it (Debian: apt install openssl)")
    directory = tmp_path_factory.mktemp("certificate")
    key, cert, both = (directory / name for name in ("key.pem", "cert.pem", "both.pem"))
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    words += ["-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", str(key)]
    words += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-out", str(cert)]
    subprocess.run(words, check=True, capture_output=True)
    both.write_text(key.read_text() + cert.read_text())
    return str(both)
