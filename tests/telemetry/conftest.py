"""What the telemetry's tests share."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import tracesock
from tests.telemetry.plain import Plain, turn_on


@pytest.fixture
def telemetry() -> Iterator[Callable[..., Plain]]:
    """Turns the telemetry on with the plain SDK; arguments of the TracerProvider and settings."""

    def on(**arguments: Any) -> Plain:
        provider = {
            key: arguments.pop(key)
            for key in ("sampler", "id_generator", "span_limits", "resource")
            if key in arguments
        }
        return turn_on(provider, **arguments)

    yield on
    tracesock.uninstrument()


@pytest.fixture
def installed() -> Iterator[None]:
    """tracesock under the standard library's `socket`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tracesock.install()
    yield
    tracesock.uninstall()
