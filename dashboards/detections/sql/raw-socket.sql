-- Raw socket (CRITICAL; network, mitre_credential_access, T1040)
-- A raw or packet socket has moved bytes: it can forge and read what other programs send. Python programs seldom have a reason but for ping.
SELECT
    time,
    service,
    'Raw socket' AS rule,
    'CRITICAL' AS priority,
    ['network', 'mitre_credential_access', 'T1040'] AS tags,
    concat(toString(service), ' used a raw socket (', toString(event), ', family ', toString(family), ', process ', toString(pid), ')') AS output
FROM tracesock.audit
WHERE time >= now64(9) - INTERVAL 1 HOUR
  AND (transport = 'raw' OR family = 'packet')
ORDER BY time DESC
LIMIT 1000;
