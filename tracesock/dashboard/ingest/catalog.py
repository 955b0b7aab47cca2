"""Texts, resources, scopes and series by their numbers."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable
from typing import Any, Final

from tracesock.dashboard import names
from tracesock.dashboard.classify import plain
from tracesock.dashboard.schema import (
    TERM_DNS,
    TERM_ERROR,
    TERM_NAME,
    TERM_PEER,
    TERM_SERVICE,
)

# How many distinct texts of a kind are kept apart; what comes after them shares OTHER.
_TERM_CAPS: Final = {
    TERM_SERVICE: 2_000,
    TERM_NAME: 50_000,
    TERM_PEER: 20_000,
    TERM_ERROR: 2_000,
    TERM_DNS: 20_000,
}
OTHER: Final = "(other)"
TERM_LENGTH: Final = 512
_SERIES_CAP: Final = 50_000
_CACHED: Final = 10_000


class Catalog:
    """Numbers for what repeats. Each lookup inserts what is new."""

    def __init__(self, db: sqlite3.Connection, count: Callable[[str], None]) -> None:
        self._db = db
        self._count = count
        self._terms: dict[tuple[int, str], int] = {}
        self._term_counts: dict[int, int] = dict(
            db.execute("SELECT kind, count(*) FROM terms GROUP BY kind")
        )
        self._resources: dict[bytes, tuple[int, int]] = {}
        self._scopes: dict[bytes, int] = {}
        self._origins: dict[tuple[int, int], int] = {}
        self._series: dict[tuple[int, int, int, int, int], int] = {}
        self._series_count = int(db.execute("SELECT count(*) FROM series").fetchone()[0])
        # The series over all peers of a series with a peer, by number.
        self.over_all_peers: dict[int, int] = {}

    def term(self, kind: int, text: str) -> int:
        """The number of a text, of which 512 characters count."""
        if len(text) > TERM_LENGTH:
            text = text[:TERM_LENGTH]
        found = self._terms.get((kind, text))
        return found if found is not None else self._new_term(kind, text)

    def _new_term(self, kind: int, text: str) -> int:
        row = self._db.execute(
            "SELECT id FROM terms WHERE kind = ? AND text = ?", (kind, text)
        ).fetchone()
        if row is None and text != OTHER and self._term_counts.get(kind, 0) >= _TERM_CAPS[kind]:
            self._count("texts_over_the_cap")
            return self.term(kind, OTHER)
        if row is None:
            cursor = self._db.execute("INSERT INTO terms (kind, text) VALUES (?, ?)", (kind, text))
            identity = int(cursor.lastrowid or 0)
            self._term_counts[kind] = self._term_counts.get(kind, 0) + 1
        else:
            identity = int(row[0])
        self._terms[kind, text] = identity
        return identity

    def resource(self, resource: Any) -> tuple[int, int]:
        """The numbers of a resource and of its service name."""
        body = resource.SerializeToString(deterministic=True)
        digest = hashlib.blake2b(body, digest_size=16).digest()
        found = self._resources.get(digest)
        if found is not None:
            return found
        row = self._db.execute(
            "SELECT id, service_id FROM resources WHERE digest = ?", (digest,)
        ).fetchone()
        if row is None:
            attributes = {kv.key: plain(kv.value) for kv in resource.attributes}
            service = self.term(
                TERM_SERVICE, str(attributes.get(names.SERVICE_NAME) or "unknown_service")
            )
            pid = attributes.get(names.PROCESS_PID)
            cursor = self._db.execute(
                "INSERT INTO resources (digest, service_id, instance, pid, body)"
                " VALUES (?, ?, ?, ?, ?)",
                (
                    digest,
                    service,
                    str(attributes.get(names.SERVICE_INSTANCE_ID) or ""),
                    pid if isinstance(pid, int) else None,
                    body,
                ),
            )
            row = (int(cursor.lastrowid or 0), service)
        if len(self._resources) > _CACHED:
            self._resources.clear()
        self._resources[digest] = (int(row[0]), int(row[1]))
        return self._resources[digest]

    def scope(self, scope: Any, schema_url: str) -> int:
        """The number of an instrumentation scope with its schema URL."""
        body = scope.SerializeToString(deterministic=True)
        digest = hashlib.blake2b(body + b"\0" + schema_url.encode(), digest_size=16).digest()
        found = self._scopes.get(digest)
        if found is not None:
            return found
        row = self._db.execute("SELECT id FROM scopes WHERE digest = ?", (digest,)).fetchone()
        if row is None:
            cursor = self._db.execute(
                "INSERT INTO scopes (digest, name, version, schema_url, body)"
                " VALUES (?, ?, ?, ?, ?)",
                (digest, scope.name, scope.version, schema_url, body),
            )
            row = (cursor.lastrowid,)
        if len(self._scopes) > _CACHED:
            self._scopes.clear()
        self._scopes[digest] = int(row[0])
        return self._scopes[digest]

    def origin(self, resource: int, scope: int) -> int:
        """The number of a resource and a scope together."""
        found = self._origins.get((resource, scope))
        if found is not None:
            return found
        pair = (resource, scope)
        self._db.execute(
            "INSERT OR IGNORE INTO origins (resource_id, scope_id) VALUES (?, ?)", pair
        )
        row = self._db.execute(
            "SELECT id FROM origins WHERE resource_id = ? AND scope_id = ?", pair
        ).fetchone()
        if len(self._origins) > _CACHED:
            self._origins.clear()
        self._origins[pair] = int(row[0])
        return self._origins[pair]

    def series(self, op: int, service: int, peer: int, error: int, source: int) -> int:
        """The number of a series of durations. Above the cap peers share the one over all."""
        key = (op, service, peer, error, source)
        found = self._series.get(key)
        return found if found is not None else self._new_series(key)

    def _new_series(self, key: tuple[int, int, int, int, int]) -> int:
        op, service, peer, error, source = key
        row = self._db.execute(
            "SELECT id FROM series WHERE op = ? AND service_id = ? AND peer_id = ?"
            " AND error_id = ? AND source = ?",
            key,
        ).fetchone()
        if row is None and self._series_count >= _SERIES_CAP and peer:
            self._count("series_over_the_cap")
            return self.series(op, service, 0, error, source)
        if row is None:
            cursor = self._db.execute(
                "INSERT INTO series (op, service_id, peer_id, error_id, source)"
                " VALUES (?, ?, ?, ?, ?)",
                key,
            )
            self._series_count += 1
            row = (cursor.lastrowid,)
        identity = int(row[0])
        self._series[key] = identity
        whole = identity if not peer else self.series(op, service, 0, error, source)
        self.over_all_peers[identity] = whole
        return identity

    def whole(self, series: int) -> int:
        """The series over all peers that a stored series is part of."""
        row = self._db.execute(
            "SELECT op, service_id, error_id, source FROM series WHERE id = ?", (series,)
        ).fetchone()
        if row is None:
            return series
        op, service, error, source = row
        self.over_all_peers[series] = self.series(op, service, 0, error, source)
        return self.over_all_peers[series]
