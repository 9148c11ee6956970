-- What people look at: bounded reads that change nothing.

-- name: health
SELECT current_setting('server_version') AS version, extract(epoch FROM clock_timestamp())::float8 AS now_s;

-- name: workers
SELECT owner::text AS owner, host, pid, started_at, extract(epoch FROM clock_timestamp() - heartbeat_at)::float8 AS silent_s
FROM workers
ORDER BY started_at DESC
LIMIT $1;

-- name: checkpoints
SELECT grp, topic, partition, committed_offset, extract(epoch FROM clock_timestamp() - updated_at)::float8 AS age_s
FROM checkpoints
WHERE grp = ANY($1::text[])
ORDER BY grp, topic, partition
LIMIT $2;

-- name: row
SELECT
    j.tenant, j.request_id, j.route_id, j.state, j.owner::text AS owner, j.starts, j.source,
    j.leader_tenant, j.leader_request_id, j.created_at, j.started_at, j.finished_at,
    coalesce(l.answer, j.answer) AS answer, j.error, coalesce(l.attempts, j.attempts) AS attempts, l.state AS leader_state
FROM journal AS j
LEFT JOIN journal AS l ON l.tenant = j.leader_tenant AND l.request_id = j.leader_request_id
WHERE j.tenant = $1 AND j.request_id = $2;

-- name: followers
SELECT request_id, tenant
FROM journal
WHERE leader_tenant = $1 AND leader_request_id = $2 AND state = 'following'
ORDER BY created_at
LIMIT $3;

-- name: tenants_of
-- The primary key begins with the tenant: without one, the tenants are hopped over, one index probe each.
WITH RECURSIVE tenants AS (
    (SELECT tenant FROM journal ORDER BY tenant LIMIT 1)
    UNION ALL
    SELECT (SELECT j.tenant FROM journal AS j WHERE j.tenant > t.tenant ORDER BY j.tenant LIMIT 1)
    FROM tenants AS t
    WHERE t.tenant IS NOT NULL
)
SELECT t.tenant
FROM tenants AS t
JOIN journal AS j ON j.tenant = t.tenant AND j.request_id = $1
WHERE t.tenant IS NOT NULL
LIMIT $2;

-- name: finished
-- The newest first, by the index on finished_at; filters are tried on at most $9 rows of it. Answers are large, and
-- fetched for the rows that are shown alone. What one write finished has one time: the key orders it, and $1 to $3 say
-- where the page before ended. The index finds the time, and the few rows of one time are sorted as they come.
SELECT * FROM (
    SELECT tenant, request_id, route_id, state, source, starts, created_at, finished_at, leader_request_id, answer
    FROM journal
    WHERE finished_at IS NOT NULL AND (finished_at, tenant, request_id) < ($1, $2, $3)
    ORDER BY finished_at DESC, tenant DESC, request_id DESC
    LIMIT $9
) AS recent
WHERE ($4::text IS NULL OR tenant = $4) AND ($5::text IS NULL OR route_id = $5)
    AND ($6::text IS NULL OR state = $6) AND ($7::text IS NULL OR request_id LIKE $7)
ORDER BY finished_at DESC, tenant DESC, request_id DESC
LIMIT $8;

-- name: unfinished
SELECT tenant, request_id, route_id, state, source, starts, created_at, started_at, leader_request_id
FROM journal
WHERE state = $1 AND finished_at IS NULL
    AND ($2::text IS NULL OR tenant = $2) AND ($3::text IS NULL OR route_id = $3)
    AND ($4::text IS NULL OR request_id LIKE $4)
LIMIT $5;
