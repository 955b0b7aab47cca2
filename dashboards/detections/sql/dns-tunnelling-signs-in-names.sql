-- DNS tunnelling signs in names (WARNING; network, dns, mitre_exfiltration, T1048)
-- Connections to many names of one domain whose first labels are long: data in the names. Only names that the program connected to are in the audit stream.
SELECT
    max(time) AS last,
    min(time) AS first,
    count() AS events,
    service,
    domain,
    uniqExact(host) AS names,
    max(length(splitByChar('.', host)[1])) AS longest,
    'DNS tunnelling signs in names' AS rule,
    'WARNING' AS priority,
    ['network', 'dns', 'mitre_exfiltration', 'T1048'] AS tags,
    concat(toString(service), ' called ', toString(names), ' names of ', toString(domain), ', with labels of up to ', toString(longest), ' characters') AS output
FROM tracesock.audit
WHERE time >= now64(9) - INTERVAL 1 HOUR
  AND ((event IN ('tracesock.connect', 'tracesock.connected', 'tracesock.sendto', 'tracesock.sendmsg', 'tracesock.send', 'tracesock.sendfile') AND direction = 'egress') AND (family IN ('inet', 'inet6')) AND length(host) > 0)
GROUP BY service, domain
HAVING names >= 20 AND longest >= 30
ORDER BY last DESC
LIMIT 1000;
