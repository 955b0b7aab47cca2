-- DNS tunnelling signs in traffic (WARNING; network, dns, mitre_exfiltration, T1071.004)
-- A program that talks to a name server itself, and much: the resolver of the C library leaves no records, so these calls are the program's own.
SELECT
    max(time) AS last,
    min(time) AS first,
    count() AS events,
    service,
    peer_address,
    peer_port,
    'DNS tunnelling signs in traffic' AS rule,
    'WARNING' AS priority,
    ['network', 'dns', 'mitre_exfiltration', 'T1071.004'] AS tags,
    concat(toString(service), ' sent ', toString(events), ' messages to the name server ', toString(peer_address), ' port ', toString(peer_port), ' itself') AS output
FROM tracesock.audit
WHERE time >= now64(9) - INTERVAL 1 HOUR
  AND ((event IN ('tracesock.connect', 'tracesock.connected', 'tracesock.sendto', 'tracesock.sendmsg', 'tracesock.send', 'tracesock.sendfile') AND direction = 'egress') AND (family IN ('inet', 'inet6')) AND peer_port IN (53, 853, 5353))
GROUP BY service, peer_address, peer_port
HAVING events >= 100
ORDER BY last DESC
LIMIT 1000;
