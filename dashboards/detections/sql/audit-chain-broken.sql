-- Audit chain broken (CRITICAL; audit, mitre_defense_evasion, T1070)
-- A record is not what was written, or the one before it is missing: the hashes are reckoned anew from the lines. `tracesock audit verify` says more, and also finds what was cut off at the end.
SELECT
    max(time) AS last,
    min(time) AS first,
    count() AS events,
    service,
    log,
    countIf(hash != expected) AS wrong,
    'Audit chain broken' AS rule,
    'CRITICAL' AS priority,
    ['audit', 'mitre_defense_evasion', 'T1070'] AS tags,
    concat('the log ', toString(log), ' of ', toString(service), ' has ', toString(wrong), ' records that do not follow from the ones before them') AS output
FROM tracesock.audit_chain
WHERE time >= now64(9) - INTERVAL 30 DAY
  AND (true)
GROUP BY service, log
HAVING wrong > 0
ORDER BY last DESC
LIMIT 1000;
