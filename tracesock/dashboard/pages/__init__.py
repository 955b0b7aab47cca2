"""The screens: each module has `SCREEN`, and all of them stand in `SCREENS`, in the order of the
navigation."""

from __future__ import annotations

from tracesock.dashboard.pages import (
    audit,
    connections,
    dns,
    health,
    peers,
    trace,
    traces,
)
from tracesock.dashboard.pages.shell import Page, Screen, View, document

SCREENS: tuple[Screen, ...] = (
    connections.SCREEN,
    traces.SCREEN,
    peers.SCREEN,
    dns.SCREEN,
    audit.SCREEN,
    health.SCREEN,
)

__all__ = ["SCREENS", "Page", "Screen", "View", "document", "render"]


def render(view: View) -> Page | None:
    """The page at the view's path; None where there is none.

    Parameters that could not be read are told on the page.
    """
    path = view.params.path
    for screen in SCREENS:
        if screen.path == path:
            return screen.render(view)
    identity = path.removeprefix("/traces/")
    if identity != path and trace.is_id(identity):
        return trace.render(view, identity)
    return None
