"""asyncio: look-ups in the caller's context, and connection set-ups that are told."""

from __future__ import annotations

import contextvars
from collections.abc import Iterable
from functools import wraps
from types import ModuleType
from typing import Any

from tracesock import _stock
from tracesock.dropin.observer import tell
from tracesock.dropin.patches import Patches


def put(base_events: ModuleType, patches: Patches) -> None:
    """Make the executor run look-ups in the context of the task that asked for them."""
    loop_class = base_events.BaseEventLoop
    original = vars(loop_class)["run_in_executor"]
    debug_lookup = vars(loop_class).get("_getaddrinfo_debug")
    names = vars(_stock.module)

    @wraps(original)
    def run_in_executor(self: Any, executor: Any, func: Any, *args: Any) -> Any:
        if (
            func is names.get("getaddrinfo")
            or func is names.get("getnameinfo")
            or (debug_lookup is not None and getattr(func, "__func__", None) is debug_lookup)
        ):
            return original(self, executor, contextvars.copy_context().run, func, *args)
        return original(self, executor, func, *args)

    patches.set(loop_class, "run_in_executor", run_in_executor)


def _internal(sockets: Iterable[Any]) -> None:
    for sock in sockets:
        if sock is not None:
            tell("internal", sock)


def observe_selector_loop(selector_events: ModuleType, patches: Patches) -> None:
    """Tell the observer of the pairs with which asyncio's loops wake up, the running one's too."""
    loop_class = selector_events.BaseSelectorEventLoop
    original = vars(loop_class)["_make_self_pipe"]
    names = ("_ssock", "_csock")

    @wraps(original)
    def _make_self_pipe(self: Any) -> None:
        original(self)
        _internal(getattr(self, name, None) for name in names)

    patches.set(loop_class, "_make_self_pipe", _make_self_pipe)
    loop = selector_events.events._get_running_loop()
    _internal(getattr(loop, name, None) for name in names)


def observe_trio(wakeup_socketpair: ModuleType, patches: Patches) -> None:
    """Tell the observer of the pair with which a trio run wakes up."""
    pair_class = wakeup_socketpair.WakeupSocketpair
    original = vars(pair_class)["__init__"]

    @wraps(original)
    def __init__(self: Any) -> None:
        original(self)
        _internal(getattr(self, name, None) for name in ("wakeup_sock", "write_sock"))

    patches.set(pair_class, "__init__", __init__)


def observe(base_events: ModuleType, patches: Patches) -> None:
    """Put a `create_connection` that tells the observer into asyncio's loops."""
    loop_class = base_events.BaseEventLoop
    original = vars(loop_class)["create_connection"]

    @wraps(original)
    async def create_connection(
        self: Any, protocol_factory: Any, host: Any = None, port: Any = None, **kwargs: Any
    ) -> Any:
        token = None
        if host is not None and kwargs.get("sock") is None:
            token = tell("setup_started", self, host, port)
        if token is None:
            return await original(self, protocol_factory, host, port, **kwargs)
        transport = None
        error: BaseException | None = None
        try:
            pair = await original(self, protocol_factory, host, port, **kwargs)
            transport = pair[0]
            return pair
        except BaseException as raised:
            error = raised
            raise
        finally:
            tell("setup_ended", token, transport, error)
            error = None

    patches.set(loop_class, "create_connection", create_connection)
