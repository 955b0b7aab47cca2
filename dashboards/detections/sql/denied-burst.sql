-- Denied burst (ERROR; network, policy, mitre_discovery, T1046)
-- Many calls that the policy refuses, or would, within ten minutes: a scan, an implant that tries its ways out, or a policy that does not fit.
SELECT
    max(time) AS last,
    min(time) AS first,
    count() AS events,
    service,
    policy_rule,
    uniqExact(peer_port) AS ports,
    uniqExact(peer_address) AS peers,
    'Denied burst' AS rule,
    'ERROR' AS priority,
    ['network', 'policy', 'mitre_discovery', 'T1046'] AS tags,
    concat(toString(service), ' was refused ', toString(events), ' calls by the rule ', toString(policy_rule), ', to ', toString(peers), ' addresses and ', toString(ports), ' ports, since ', toString(first)) AS output
FROM tracesock.audit
WHERE time >= now64(9) - INTERVAL 10 MINUTE
  AND ((action IN ('deny', 'would_deny')))
GROUP BY service, policy_rule
HAVING events >= 20
ORDER BY last DESC
LIMIT 1000;
