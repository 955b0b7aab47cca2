-- Where the detections look: the audit's lines, and what is in them as columns.
--
-- From a log:  INSERT INTO tracesock.audit (service, log, line)
--              SELECT 'shop', 'audit.jsonl', line FROM file('audit.jsonl', 'LineAsString', 'line String')
-- From the Collector's ClickHouse exporter: the view at the end of this file.
CREATE DATABASE IF NOT EXISTS tracesock;

CREATE TABLE IF NOT EXISTS tracesock.audit
(
    service LowCardinality(String),
    log String,
    line String CODEC(ZSTD),
    time DateTime64(9, 'UTC') MATERIALIZED parseDateTime64BestEffort(JSONExtractString(line, 'time'), 9, 'UTC'),
    sequence UInt64 MATERIALIZED JSONExtractUInt(line, 'seq'),
    event LowCardinality(String) MATERIALIZED JSONExtractString(line, 'event'),
    action LowCardinality(String) MATERIALIZED JSONExtractString(line, 'action'),
    policy_rule LowCardinality(String) MATERIALIZED JSONExtractString(line, 'rule'),
    direction LowCardinality(String) MATERIALIZED JSONExtractString(line, 'direction'),
    outcome LowCardinality(String) MATERIALIZED JSONExtractString(line, 'outcome'),
    error LowCardinality(String) MATERIALIZED JSONExtractString(line, 'error'),
    duration Float64 MATERIALIZED JSONExtractFloat(line, 'duration'),
    family LowCardinality(String) MATERIALIZED JSONExtractString(line, 'family'),
    transport LowCardinality(String) MATERIALIZED JSONExtractString(line, 'transport'),
    host String MATERIALIZED JSONExtractString(line, 'host'),
    -- The last two labels of the name: where names are given out below longer suffixes, too short.
    domain String MATERIALIZED arrayStringConcat(arraySlice(splitByChar('.', host), -2), '.'),
    peer_address String MATERIALIZED JSONExtractString(line, 'peer', 'address'),
    peer_port UInt16 MATERIALIZED JSONExtractUInt(line, 'peer', 'port'),
    -- The name where one was looked up: addresses behind it come and go.
    destination String MATERIALIZED if(host = '', peer_address, host),
    local_address String MATERIALIZED JSONExtractString(line, 'local', 'address'),
    local_port UInt16 MATERIALIZED JSONExtractUInt(line, 'local', 'port'),
    pid UInt32 MATERIALIZED JSONExtractUInt(line, 'pid'),
    trace_id String MATERIALIZED JSONExtractString(line, 'trace_id'),
    span_id String MATERIALIZED JSONExtractString(line, 'span_id'),
    source String MATERIALIZED JSONExtractString(line, 'source'),
    hash String MATERIALIZED JSONExtractString(line, 'hash')
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (service, time)
TTL toDateTime(time) + INTERVAL 90 DAY;

-- Each record with the hash that it must have: docs/reference/audit-events.md, "The chain".
CREATE VIEW IF NOT EXISTS tracesock.audit_chain AS
SELECT
    service,
    log,
    time,
    sequence,
    host,
    peer_address,
    peer_port,
    hash,
    lagInFrame(sequence, 1, 0) OVER chain AS before,
    lagInFrame(hash, 1, repeat('0', 64)) OVER chain AS previous,
    lower(hex(SHA256(concat(previous, '\n', replaceRegexpOne(line, '"[0-9a-f]{64}"([\\]}]*)$', concat('"', repeat('0', 64), '"\\1'))))))
        AS linked,
    -- What is older is not here any more: nothing to compare the first one with.
    if(before = 0 AND sequence != 1, hash, linked) AS expected
FROM tracesock.audit
WINDOW chain AS (
    PARTITION BY service, log ORDER BY sequence ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
);
