-- What the Collector's ClickHouse exporter has written to otel_logs, as rows of tracesock.audit.
-- Needs OTEL_LOGS_EXPORTER=otlp and TRACESOCK_AUDIT_OTEL=1, or a log of the format otlp that the
-- Collector reads: there the body is the record itself, hash and all.
CREATE MATERIALIZED VIEW IF NOT EXISTS tracesock.audit_from_otel_logs TO tracesock.audit AS
SELECT
    ServiceName AS service,
    LogAttributes['log.file.name'] AS log,
    Body AS line
FROM otel_logs
WHERE ScopeName = 'tracesock' AND Body != '';
