-- The accounts' statements by name. Rows travel as arrays, one per column, in the order of their keys: two processors
-- that count at once then wait for each other instead of for ever.

-- name: insert_deltas
INSERT INTO usage_deltas (id, minute, tenant, exact, semantic, exact_nano, semantic_nano, added)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
    $8::bytea[])
ON CONFLICT (id) DO NOTHING
RETURNING id;

-- name: take_back
WITH old AS (
    SELECT id, added FROM usage_deltas WHERE id = ANY ($1::text[]) AND added IS NOT NULL ORDER BY id FOR UPDATE
)
UPDATE usage_deltas AS d SET exact = 0, semantic = 0, exact_nano = 0, semantic_nano = 0, added = NULL
FROM old WHERE d.id = old.id
RETURNING old.added;

-- name: insert_receipts
-- A request that failed and then was paid for, when it was sent again, is one that was paid for.
INSERT INTO usage_receipts AS r (tenant, request_id, kind, nano_usd, minute)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[])
ON CONFLICT (tenant, request_id) DO UPDATE
    SET kind = excluded.kind, nano_usd = excluded.nano_usd, minute = excluded.minute
    WHERE r.kind = 'error' AND excluded.kind <> 'error'
RETURNING tenant, request_id;

-- name: add_errors
INSERT INTO usage_errors AS e (window_s, start, tenant, route, code, responses)
SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::bigint[])
ON CONFLICT (window_s, start, tenant, route, code) DO UPDATE SET responses = e.responses + excluded.responses;

-- name: windows
SELECT w.*
FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[]) AS k (window_s, start, tenant, route, model)
JOIN usage_windows AS w USING (window_s, start, tenant, route, model);

-- name: errors_between
SELECT tenant, route, code, sum(responses)::bigint AS responses
FROM usage_errors WHERE window_s = $1 AND start >= $2 AND start < $3
GROUP BY tenant, route, code HAVING sum(responses) > 0 ORDER BY tenant, route, code;

-- name: hits_between
SELECT tenant, sum(exact)::bigint AS exact, sum(semantic)::bigint AS semantic,
    sum(exact_nano)::bigint AS exact_nano, sum(semantic_nano)::bigint AS semantic_nano
FROM usage_deltas WHERE minute >= $1 AND minute < $2
GROUP BY tenant;

-- name: receipts_between
-- Each receipt with what the journal holds for it.
SELECT r.tenant, r.request_id, r.kind, r.nano_usd, j.state, l.answer IS NOT NULL AS follows,
    coalesce(l.answer, j.answer) AS answer
FROM usage_receipts AS r
LEFT JOIN journal AS j ON j.tenant = r.tenant AND j.request_id = r.request_id
LEFT JOIN journal AS l ON j.state = 'following' AND l.state = 'succeeded'
    AND l.tenant = j.leader_tenant AND l.request_id = j.leader_request_id
WHERE r.minute >= $1 AND r.minute < $2;

-- name: uncounted_between
-- Results of requests from Kafka that no account has heard of, and of all others, which answer no topic.
SELECT j.tenant, j.source IS NOT NULL AS streamed, j.answer
FROM journal AS j
WHERE j.state = 'succeeded' AND j.finished_at >= to_timestamp($1::float8) AND j.finished_at < to_timestamp($2::float8)
    AND NOT EXISTS (SELECT FROM usage_receipts AS r WHERE r.tenant = j.tenant AND r.request_id = j.request_id);

-- name: spending_now
SELECT budget, tenant, window_start, window_s, nano_usd, tokens
FROM spending WHERE window_start + window_s > extract(epoch FROM now());

-- name: alerted
SELECT budget, tenant, window_start, percent, window_s FROM usage_alerts
WHERE window_start + window_s > extract(epoch FROM now());

-- name: insert_alert
-- One of a shorter window that began then, before the budget's length was changed, gives way to the longer one's.
INSERT INTO usage_alerts AS a (budget, tenant, window_start, percent, window_s, spent_nano, spent_tokens)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (budget, tenant, window_start, percent) DO UPDATE
SET window_s = excluded.window_s, raised_at = now(),
    spent_nano = excluded.spent_nano, spent_tokens = excluded.spent_tokens
WHERE a.window_s < excluded.window_s;

-- Each deletes a part, the oldest: what is done stays done, however much there is. The condition is said twice for rows
-- that change between the two looks.

-- name: prune_deltas
DELETE FROM usage_deltas WHERE minute < $1::bigint AND ctid = ANY (ARRAY(
    SELECT ctid FROM usage_deltas WHERE minute < $1::bigint ORDER BY minute LIMIT $2
))
RETURNING 1;

-- name: prune_receipts
DELETE FROM usage_receipts WHERE minute < $1::bigint AND ctid = ANY (ARRAY(
    SELECT ctid FROM usage_receipts WHERE minute < $1::bigint ORDER BY minute LIMIT $2
))
RETURNING 1;

-- name: prune_windows
DELETE FROM usage_windows WHERE window_s = 60 AND start < $1::bigint AND ctid = ANY (ARRAY(
    SELECT ctid FROM usage_windows WHERE window_s = 60 AND start < $1::bigint ORDER BY start LIMIT $2
))
RETURNING 1;

-- name: prune_errors
DELETE FROM usage_errors WHERE window_s = 60 AND start < $1::bigint AND ctid = ANY (ARRAY(
    SELECT ctid FROM usage_errors WHERE window_s = 60 AND start < $1::bigint ORDER BY start LIMIT $2
))
RETURNING 1;

-- name: prune_alerts
DELETE FROM usage_alerts WHERE window_start + window_s < $1::bigint AND ctid = ANY (ARRAY(
    SELECT ctid FROM usage_alerts WHERE window_start + window_s < $1::bigint ORDER BY window_start LIMIT $2
))
RETURNING 1;
