-- Bind to all interfaces (NOTICE; network, ingress, mitre_persistence, T1571)
-- A listener takes connections from every network the machine is in.
SELECT
    time,
    service,
    'Bind to all interfaces' AS rule,
    'NOTICE' AS priority,
    ['network', 'ingress', 'mitre_persistence', 'T1571'] AS tags,
    concat(toString(service), ' listens on all interfaces, port ', toString(local_port), ' (process ', toString(pid), ')') AS output
FROM tracesock.audit
WHERE time >= now64(9) - INTERVAL 1 HOUR
  AND (event = 'tracesock.listen' AND local_address IN ('0.0.0.0', '::'))
ORDER BY time DESC
LIMIT 1000;
