-- First-seen destination (NOTICE; network, egress, mitre_command_and_control, T1071)
-- A service has called a destination that it has not called before, in the last month. It says nothing of a service that was not there an hour ago.
SELECT
    max(time) AS last,
    min(time) AS first,
    count() AS events,
    service,
    destination,
    peer_port,
    'First-seen destination' AS rule,
    'NOTICE' AS priority,
    ['network', 'egress', 'mitre_command_and_control', 'T1071'] AS tags,
    concat(toString(service), ' called ', toString(destination), ' port ', toString(peer_port), ' for the first time at ', toString(first), ' (', toString(events), ' calls since)') AS output
FROM tracesock.audit
WHERE time >= now64(9) - INTERVAL 30 DAY
  AND ((event IN ('tracesock.connect', 'tracesock.connected', 'tracesock.sendto', 'tracesock.sendmsg', 'tracesock.send', 'tracesock.sendfile') AND direction = 'egress') AND (family IN ('inet', 'inet6')) AND NOT (action IN ('deny', 'would_deny')) AND service IN (SELECT service FROM tracesock.audit GROUP BY service HAVING min(time) < now64(9) - INTERVAL 1 HOUR))
GROUP BY service, destination, peer_port
HAVING first >= now64(9) - INTERVAL 1 HOUR
ORDER BY last DESC
LIMIT 1000;
