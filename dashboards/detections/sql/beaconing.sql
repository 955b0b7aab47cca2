-- Beaconing (WARNING; network, egress, mitre_command_and_control, T1571)
-- Calls to one destination at even intervals, as an implant makes that asks for orders. Health checks and pollers do the same: exclude theirs once they are known.
SELECT
    max(time) AS last,
    min(time) AS first,
    count() AS events,
    service,
    destination,
    peer_port,
    arraySort(groupArray(toUnixTimestamp64Nano(time))) AS moments,
    arrayMap((a, b) -> (b - a) / 1e9, arrayPopBack(moments), arrayPopFront(moments)) AS intervals,
    arrayReduce('median', intervals) AS period,
    arrayReduce('median', arrayMap(t -> abs(t - period), intervals)) / period AS jitter,
    'Beaconing' AS rule,
    'WARNING' AS priority,
    ['network', 'egress', 'mitre_command_and_control', 'T1571'] AS tags,
    concat(toString(service), ' calls ', toString(destination), ' port ', toString(peer_port), ' every ', toString(period), ' s (', toString(events), ' times, jitter ', toString(jitter), ')') AS output
FROM tracesock.audit
WHERE time >= now64(9) - INTERVAL 24 HOUR
  AND (event = 'tracesock.connect' AND direction = 'egress' AND (family IN ('inet', 'inet6')) AND NOT (action IN ('deny', 'would_deny')))
GROUP BY service, destination, peer_port
HAVING events >= 8 AND period >= 1 AND jitter <= 0.1
ORDER BY last DESC
LIMIT 1000;
