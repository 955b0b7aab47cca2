"""The tables of the dashboard's SQLite file, and its version."""

from __future__ import annotations

from typing import Final

# `PRAGMA application_id`: tells the file from another program's. "trsk" in ASCII.
APPLICATION_ID: Final = 0x7472736B
# `PRAGMA user_version`: raised with every change of the tables or of what is in them.
SCHEMA_VERSION: Final = 3

# Widths of the slots of `latency`, seconds (`metric_points` has FINE alone). Series over all peers
# have all three, series of one peer the two wider.
FINE: Final = 10
MIDDLE: Final = 60
COARSE: Final = 300
# How long slots are kept, seconds; those of COARSE are as long as everything else.
FINE_KEPT: Final = 1800
MIDDLE_KEPT: Final = 7 * 3600

# Kinds of `terms`
TERM_SERVICE: Final = 1
TERM_NAME: Final = 2
TERM_PEER: Final = 3
TERM_ERROR: Final = 4
TERM_DNS: Final = 5

# Sources of `series`
SOURCE_SPAN: Final = 0
SOURCE_METRIC: Final = 1

# Spans lie beside the other spans of their trace, which is numbered in the order of arrival: so a
# waterfall is one range, inserts go to the end of the tree, and a resent span is stored once.
SCHEMA: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE terms (
  id INTEGER PRIMARY KEY, kind INTEGER NOT NULL, text TEXT NOT NULL, UNIQUE (kind, text));
CREATE TABLE resources (
  id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, service_id INTEGER NOT NULL,
  instance TEXT NOT NULL, pid INTEGER, body BLOB NOT NULL);
CREATE TABLE scopes (
  id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, name TEXT NOT NULL, version TEXT NOT NULL,
  schema_url TEXT NOT NULL, body BLOB NOT NULL);
CREATE TABLE origins (
  id INTEGER PRIMARY KEY, resource_id INTEGER NOT NULL, scope_id INTEGER NOT NULL,
  UNIQUE (resource_id, scope_id));
CREATE TABLE traces (
  no INTEGER PRIMARY KEY, trace_id BLOB NOT NULL UNIQUE, start_ns INTEGER NOT NULL,
  end_ns INTEGER NOT NULL, spans INTEGER NOT NULL, errors INTEGER NOT NULL,
  root_name INTEGER NOT NULL, root_service INTEGER NOT NULL, has_root INTEGER NOT NULL,
  root_start INTEGER NOT NULL, arrived_s INTEGER NOT NULL);
CREATE TABLE trace_terms (
  term_id INTEGER NOT NULL, trace_no INTEGER NOT NULL,
  PRIMARY KEY (term_id, trace_no)) WITHOUT ROWID;
CREATE TABLE spans (
  trace_no INTEGER NOT NULL, span_id BLOB NOT NULL, origin_id INTEGER NOT NULL,
  start_ns INTEGER NOT NULL, error_id INTEGER NOT NULL, peer_id INTEGER NOT NULL,
  body BLOB NOT NULL, name_id INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (trace_no, span_id)) WITHOUT ROWID;
CREATE TABLE attempts (
  id INTEGER PRIMARY KEY, trace_no INTEGER NOT NULL, span_id BLOB NOT NULL,
  op INTEGER NOT NULL, service_id INTEGER NOT NULL, peer_id INTEGER NOT NULL,
  error_id INTEGER NOT NULL, start_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL);
CREATE TABLE series (
  id INTEGER PRIMARY KEY, op INTEGER NOT NULL, service_id INTEGER NOT NULL,
  peer_id INTEGER NOT NULL, error_id INTEGER NOT NULL, source INTEGER NOT NULL,
  UNIQUE (op, service_id, peer_id, error_id, source));
CREATE TABLE latency (
  width INTEGER NOT NULL, slot INTEGER NOT NULL, series_id INTEGER NOT NULL,
  buckets TEXT NOT NULL, arrived_s INTEGER NOT NULL,
  PRIMARY KEY (width, slot, series_id)) WITHOUT ROWID;
CREATE TABLE unsettled (id INTEGER PRIMARY KEY, observations TEXT NOT NULL);
CREATE TABLE peer_services (
  peer_id INTEGER PRIMARY KEY, service_id INTEGER NOT NULL);
CREATE TABLE dns_answers (
  name_id INTEGER NOT NULL, answer TEXT NOT NULL, seen_s INTEGER NOT NULL,
  PRIMARY KEY (name_id, answer)) WITHOUT ROWID;
CREATE TABLE metric_series (
  id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, resource_id INTEGER NOT NULL,
  service_id INTEGER NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL, unit TEXT NOT NULL,
  attributes TEXT NOT NULL, state TEXT NOT NULL, seen_ns INTEGER NOT NULL,
  arrived_s INTEGER NOT NULL);
CREATE INDEX metric_series_name ON metric_series (name);
CREATE TABLE metric_points (
  series_id INTEGER NOT NULL, slot INTEGER NOT NULL, value REAL NOT NULL, n REAL NOT NULL,
  arrived_s INTEGER NOT NULL, PRIMARY KEY (series_id, slot)) WITHOUT ROWID;
CREATE TABLE connections (
  resource_id INTEGER NOT NULL, connection_id TEXT NOT NULL, service_id INTEGER NOT NULL,
  pid INTEGER, peer TEXT NOT NULL, address TEXT NOT NULL, host TEXT NOT NULL,
  local TEXT NOT NULL, direction TEXT NOT NULL, transport TEXT NOT NULL, state TEXT NOT NULL,
  descriptor INTEGER, opened_ns INTEGER, rtt REAL, rtt_history TEXT NOT NULL, sent INTEGER,
  received INTEGER, retransmits INTEGER, queued INTEGER, trace_id BLOB NOT NULL,
  span_id BLOB NOT NULL, stack TEXT NOT NULL, round_ns INTEGER NOT NULL,
  arrived_ns INTEGER NOT NULL, interval_s REAL NOT NULL,
  PRIMARY KEY (resource_id, connection_id)) WITHOUT ROWID;
CREATE TABLE audit (
  id INTEGER PRIMARY KEY, time_ns INTEGER NOT NULL, resource_id INTEGER NOT NULL,
  service_id INTEGER NOT NULL, action TEXT NOT NULL, rule TEXT NOT NULL, event TEXT NOT NULL,
  direction TEXT NOT NULL, peer TEXT NOT NULL, outcome TEXT NOT NULL, duration REAL,
  pid INTEGER, trace_id BLOB NOT NULL, span_id BLOB NOT NULL, sequence INTEGER,
  chain TEXT NOT NULL, hash TEXT NOT NULL, previous TEXT NOT NULL, chain_state TEXT NOT NULL,
  arrived_s INTEGER NOT NULL);
CREATE INDEX audit_chain ON audit (chain, sequence);
CREATE INDEX audit_time ON audit (time_ns);
CREATE TABLE leaks (
  resource_id INTEGER NOT NULL, connection_id TEXT NOT NULL, service_id INTEGER NOT NULL,
  kind TEXT NOT NULL, peer TEXT NOT NULL, state TEXT NOT NULL, pid INTEGER, descriptor INTEGER,
  age REAL, stack TEXT NOT NULL, trace_id BLOB NOT NULL, time_ns INTEGER NOT NULL,
  arrived_s INTEGER NOT NULL, PRIMARY KEY (resource_id, connection_id, kind)) WITHOUT ROWID;
CREATE TABLE logs (
  id INTEGER PRIMARY KEY, time_ns INTEGER NOT NULL, resource_id INTEGER NOT NULL,
  scope_id INTEGER NOT NULL, event TEXT NOT NULL, severity INTEGER NOT NULL,
  trace_id BLOB NOT NULL, span_id BLOB NOT NULL, body BLOB NOT NULL, arrived_s INTEGER NOT NULL);
CREATE INDEX logs_trace ON logs (trace_id) WHERE trace_id <> x'';
CREATE TABLE intake (reason TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
"""

# What makes a file of a version one of the next; `span_name` is the name in a span's body.
MIGRATIONS: Final = {
    # Packed buckets were a JSON array, and are a text that another can be appended to.
    1: "UPDATE latency SET buckets = ',' || trim(buckets, '[]') WHERE buckets LIKE '[%_]'",
    2: "ALTER TABLE spans ADD COLUMN name_id INTEGER NOT NULL DEFAULT 0;"
    f" UPDATE spans SET name_id = coalesce((SELECT id FROM terms WHERE kind = {TERM_NAME}"
    " AND text = span_name(body)), 0)",
}
