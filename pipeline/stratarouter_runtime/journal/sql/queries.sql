-- The journal's statements by name. Rows travel as arrays, one per column; ``ord`` is a row's place in them. They are
-- written in the order of their keys, so that two statements never wait for each other crosswise.

-- name: begin_new
-- Nearly every row is new: a bare INSERT takes it and says only how many it took.
INSERT INTO journal (
    tenant, request_id, payload_hash, route_id, source, leader_tenant, leader_request_id, state, owner, starts, started_at
)
SELECT
    i.tenant, i.request_id, i.payload_hash, i.route_id, i.source, i.leader_tenant, i.leader_request_id,
    CASE WHEN i.leader_tenant IS NULL THEN 'started' ELSE 'following' END,
    $8::uuid,
    CASE WHEN i.leader_tenant IS NULL THEN 1 ELSE 0 END,
    CASE WHEN i.leader_tenant IS NULL THEN now() END
FROM unnest(
    $1::text::text[], $2::text::text[], $3::text::text[], $4::text::text[], $5::text::text[], $6::text::text[],
    $7::text::text[]
) AS i (tenant, request_id, payload_hash, route_id, source, leader_tenant, leader_request_id)
ORDER BY i.tenant COLLATE "C", i.request_id COLLATE "C"
ON CONFLICT (tenant, request_id) DO NOTHING;

-- name: begun_by
-- Where begin_new took some of the rows only: the places of those, which are the last that this owner made. Whoever has
-- written a result into one of the rows since wrote last: none is told then.
WITH found AS (
    SELECT i.ord, age(r.xmin) AS since, r.state
    FROM unnest($1::text::text[], $2::text::text[], $3::text::text[]) WITH ORDINALITY
        AS i (tenant, request_id, payload_hash, ord)
    JOIN journal AS r ON r.tenant = i.tenant AND r.request_id = i.request_id
    WHERE r.owner = $4::uuid AND r.payload_hash = i.payload_hash
)
SELECT ord FROM found WHERE since = (SELECT min(since) FROM found) AND state IN ('started', 'following');

-- name: begin
WITH item AS MATERIALIZED (
    SELECT *
    FROM unnest(
        $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bool[], $9::bool[]
    ) WITH ORDINALITY AS i (
        tenant, request_id, payload_hash, route_id, source, leader_tenant, leader_request_id, retry_ambiguous, held, ord
    )
), seen AS MATERIALIZED (
    SELECT
        i.ord, r.tenant, r.request_id, r.state, r.owner, r.starts,
        i.leader_tenant AS new_leader_tenant, i.leader_request_id AS new_leader_request_id,
        r.leader_tenant, r.leader_request_id,
        coalesce(l.answer, r.answer) AS answer,
        r.error,
        coalesce(l.attempts, r.attempts) AS attempts,
        CASE
            WHEN r.payload_hash <> i.payload_hash THEN 'conflict'
            WHEN r.state IN ('succeeded', 'failed') OR l.state IS NOT NULL THEN 'recorded'
            WHEN r.state = 'following' THEN 'take'
            WHEN r.owner = $10::uuid THEN CASE WHEN i.held THEN 'busy' ELSE 'take' END
            -- A silent owner is dead only to a worker that was itself heard all the while: when the database was
            -- away for everybody, all look dead at its return, and none is. A row that is gone was deregistered.
            WHEN EXISTS (
                SELECT FROM workers AS w
                WHERE w.owner = r.owner AND (
                    w.heartbeat_at > now() - make_interval(secs => $11::float8)
                    OR NOT EXISTS (
                        SELECT FROM workers AS me
                        WHERE me.owner = $10::uuid
                            AND me.heartbeat_at > now() - make_interval(secs => $11::float8)
                            AND me.steady_since <= now() - make_interval(secs => $11::float8)
                    )
                )
            ) THEN 'busy'
            WHEN i.retry_ambiguous THEN 'take'
            ELSE 'ambiguous'
        END AS verdict
    FROM item AS i
    JOIN journal AS r ON r.tenant = i.tenant AND r.request_id = i.request_id
    LEFT JOIN journal AS l ON r.state = 'following' AND l.state = 'succeeded'
        AND l.tenant = r.leader_tenant AND l.request_id = r.leader_request_id
), inserted AS (
    INSERT INTO journal (
        tenant, request_id, payload_hash, route_id, source, leader_tenant, leader_request_id,
        state, owner, starts, started_at
    )
    SELECT
        i.tenant, i.request_id, i.payload_hash, i.route_id, i.source, i.leader_tenant, i.leader_request_id,
        CASE WHEN i.leader_tenant IS NULL THEN 'started' ELSE 'following' END,
        $10::uuid,
        CASE WHEN i.leader_tenant IS NULL THEN 1 ELSE 0 END,
        CASE WHEN i.leader_tenant IS NULL THEN now() END
    FROM item AS i
    WHERE NOT EXISTS (SELECT FROM seen AS s WHERE s.ord = i.ord)
    ORDER BY i.tenant COLLATE "C", i.request_id COLLATE "C"
    ON CONFLICT (tenant, request_id) DO NOTHING
    RETURNING tenant, request_id, payload_hash
), taken AS (
    -- state, owner and starts are compared again with the row as it is once locked: one taker wins.
    UPDATE journal AS j
    SET owner = $10::uuid,
        leader_tenant = s.new_leader_tenant,
        leader_request_id = s.new_leader_request_id,
        state = CASE WHEN s.new_leader_tenant IS NULL THEN 'started' ELSE 'following' END,
        starts = j.starts + CASE WHEN s.new_leader_tenant IS NULL THEN 1 ELSE 0 END,
        started_at = CASE WHEN s.new_leader_tenant IS NULL THEN now() END
    FROM seen AS s
    WHERE s.verdict = 'take' AND j.tenant = s.tenant AND j.request_id = s.request_id
        AND j.state = s.state AND j.owner = s.owner AND j.starts = s.starts
    RETURNING s.ord
)
SELECT
    i.ord,
    -- NULL: another transaction was faster and this snapshot cannot see what it did; ask again.
    CASE
        WHEN n.tenant IS NOT NULL OR t.ord IS NOT NULL THEN 'granted'
        WHEN s.verdict <> 'take' THEN s.verdict
    END AS verdict,
    s.owner,
    coalesce(s.state = 'started' AND s.owner <> $10::uuid, false) AS took_over,
    s.leader_tenant, s.leader_request_id,
    CASE WHEN s.verdict = 'recorded' THEN s.answer END AS answer,
    CASE WHEN s.verdict = 'recorded' THEN s.error END AS error,
    CASE WHEN s.verdict = 'recorded' THEN s.attempts END AS attempts
FROM item AS i
LEFT JOIN seen AS s ON s.ord = i.ord
LEFT JOIN taken AS t ON t.ord = i.ord
LEFT JOIN inserted AS n
    ON n.tenant = i.tenant AND n.request_id = i.request_id AND n.payload_hash = i.payload_hash;

-- name: finish
WITH item AS MATERIALIZED (
    SELECT *
    FROM unnest($1::text::text[], $2::text::text[], $3::text::text[], $4::bytea[], $5::bytea[], $6::bytea[])
        WITH ORDINALITY AS i (tenant, request_id, state, answer, error, attempts, ord)
), written AS (
    INSERT INTO journal AS j (tenant, request_id, state, answer, error, attempts, owner, starts, finished_at)
    SELECT i.tenant, i.request_id, i.state, i.answer, i.error, i.attempts, $7::uuid, 0, now()
    FROM item AS i
    WHERE i.state IS NOT NULL
    ORDER BY i.tenant COLLATE "C", i.request_id COLLATE "C"
    ON CONFLICT (tenant, request_id) DO UPDATE
    SET state = excluded.state, answer = excluded.answer, error = excluded.error, attempts = excluded.attempts,
        leader_tenant = NULL, leader_request_id = NULL, finished_at = excluded.finished_at
    WHERE j.state = 'started' OR (
        j.state = 'following' AND NOT EXISTS (
            SELECT FROM journal AS l
            WHERE l.tenant = j.leader_tenant AND l.request_id = j.leader_request_id AND l.state = 'succeeded'
        )
    )
    RETURNING j.tenant, j.request_id
), charged AS (
    -- Only for results that this statement has written: a result is charged as often as it is recorded, once.
    -- Of a budget whose length was changed two windows may begin with the same second. What either holds was spent
    -- since then: they are one row, as long as the longer.
    INSERT INTO spending AS s (budget, tenant, window_start, window_s, nano_usd, tokens, calls)
    SELECT c.budget, i.tenant, c.window_start, max(c.window_s), sum(c.nano_usd), sum(c.tokens), count(*)
    FROM unnest($8::bigint[], $9::text[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[])
        AS c (ord, budget, window_start, window_s, nano_usd, tokens)
    JOIN item AS i ON i.ord = c.ord
    JOIN written AS w ON w.tenant = i.tenant AND w.request_id = i.request_id
    GROUP BY c.budget, i.tenant, c.window_start
    ORDER BY c.budget, i.tenant, c.window_start
    ON CONFLICT (budget, tenant, window_start) DO UPDATE
    SET window_s = greatest(s.window_s, excluded.window_s), nano_usd = s.nano_usd + excluded.nano_usd,
        tokens = s.tokens + excluded.tokens, calls = s.calls + excluded.calls
)
-- What is not in the reply was written.
SELECT
    i.ord,
    l.state IS NOT NULL OR coalesce(r.state IN ('succeeded', 'failed'), false) AS finished,
    r.leader_tenant, r.leader_request_id,
    coalesce(l.answer, r.answer) AS answer,
    r.error,
    coalesce(l.attempts, r.attempts) AS attempts
FROM item AS i
LEFT JOIN written AS w ON w.tenant = i.tenant AND w.request_id = i.request_id
LEFT JOIN journal AS r ON r.tenant = i.tenant AND r.request_id = i.request_id
LEFT JOIN journal AS l ON r.state = 'following' AND l.state = 'succeeded'
    AND l.tenant = r.leader_tenant AND l.request_id = r.leader_request_id
-- The counts are compared once: where every row was written, nothing is joined.
WHERE (SELECT count(*) FROM written) < (SELECT count(*) FROM item) AND w.tenant IS NULL;

-- name: record_new
WITH item AS MATERIALIZED (
    SELECT *
    FROM unnest(
        $1::text::text[], $2::text::text[], $3::text::text[], $4::text::text[], $5::text::text[], $6::text::text[],
        $7::bytea[], $8::bytea[], $9::bytea[]
    ) WITH ORDINALITY AS i (tenant, request_id, payload_hash, route_id, source, state, answer, error, attempts, ord)
), written AS (
    INSERT INTO journal (
        tenant, request_id, payload_hash, route_id, source, state, answer, error, attempts,
        owner, starts, started_at, finished_at
    )
    SELECT
        i.tenant, i.request_id, i.payload_hash, i.route_id, i.source, i.state, i.answer, i.error, i.attempts,
        $10::uuid, 1, now(), now()
    FROM item AS i
    ORDER BY i.tenant COLLATE "C", i.request_id COLLATE "C"
    ON CONFLICT (tenant, request_id) DO NOTHING
    RETURNING tenant, request_id
)
INSERT INTO spending AS s (budget, tenant, window_start, window_s, nano_usd, tokens, calls)
SELECT c.budget, i.tenant, c.window_start, max(c.window_s), sum(c.nano_usd), sum(c.tokens), count(*)
FROM unnest($11::bigint[], $12::text[], $13::bigint[], $14::bigint[], $15::bigint[], $16::bigint[])
    AS c (ord, budget, window_start, window_s, nano_usd, tokens)
JOIN item AS i ON i.ord = c.ord
JOIN written AS w ON w.tenant = i.tenant AND w.request_id = i.request_id
GROUP BY c.budget, i.tenant, c.window_start
ORDER BY c.budget, i.tenant, c.window_start
ON CONFLICT (budget, tenant, window_start) DO UPDATE
SET window_s = greatest(s.window_s, excluded.window_s), nano_usd = s.nano_usd + excluded.nano_usd,
    tokens = s.tokens + excluded.tokens, calls = s.calls + excluded.calls;

-- name: lookup
SELECT
    i.ord,
    r.leader_tenant, r.leader_request_id,
    coalesce(l.answer, r.answer) AS answer,
    r.error,
    coalesce(l.attempts, r.attempts) AS attempts
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS i (tenant, request_id, ord)
JOIN journal AS r ON r.tenant = i.tenant AND r.request_id = i.request_id
LEFT JOIN journal AS l ON r.state = 'following' AND l.state = 'succeeded'
    AND l.tenant = r.leader_tenant AND l.request_id = r.leader_request_id
WHERE r.state IN ('succeeded', 'failed') OR l.state IS NOT NULL;

-- name: abandoned
SELECT i.ord
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS i (tenant, request_id, ord)
JOIN journal AS r ON r.tenant = i.tenant AND r.request_id = i.request_id
WHERE r.state = 'started' AND r.owner <> $3::uuid AND NOT EXISTS (
    SELECT FROM workers AS w
    WHERE w.owner = r.owner AND w.heartbeat_at > now() - make_interval(secs => $4::float8)
);

-- name: spoken_for
SELECT i.ord
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS i (tenant, request_id, ord)
JOIN journal AS r ON r.tenant = i.tenant AND r.request_id = i.request_id
LEFT JOIN journal AS l ON r.state = 'following' AND l.state = 'succeeded'
    AND l.tenant = r.leader_tenant AND l.request_id = r.leader_request_id
WHERE r.state IN ('succeeded', 'failed') OR l.state IS NOT NULL OR (
    -- Who lives is judged as begin does it: what is busy there is waited for.
    r.state = 'started' AND r.owner <> $3::uuid AND EXISTS (
        SELECT FROM workers AS w
        WHERE w.owner = r.owner AND (
            w.heartbeat_at > now() - make_interval(secs => $4::float8)
            OR NOT EXISTS (
                SELECT FROM workers AS me
                WHERE me.owner = $3::uuid
                    AND me.heartbeat_at > now() - make_interval(secs => $4::float8)
                    AND me.steady_since <= now() - make_interval(secs => $4::float8)
            )
        )
    )
);

-- name: payload_hashes
SELECT i.ord, r.payload_hash
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS i (tenant, request_id, ord)
JOIN journal AS r ON r.tenant = i.tenant AND r.request_id = i.request_id;

-- name: spent
SELECT k.ord, s.nano_usd, s.tokens
FROM unnest($1::text[], $2::text[], $3::bigint[]) WITH ORDINALITY AS k (budget, tenant, window_start, ord)
JOIN spending AS s ON s.budget = k.budget AND s.tenant = k.tenant AND s.window_start = k.window_start;

-- name: purge_spending
DELETE FROM spending WHERE window_start + window_s < extract(epoch FROM now()) - $1::float8;

-- name: purge
WITH old AS MATERIALIZED (
    SELECT j.tenant, j.request_id
    FROM journal AS j
    WHERE j.finished_at < now() - make_interval(secs => $1::float8)
    ORDER BY j.finished_at
    LIMIT $2::bigint
    FOR UPDATE SKIP LOCKED
), followers AS (
    -- A follower has no result once its leader is gone: they go together.
    DELETE FROM journal AS f USING old
    WHERE f.state = 'following' AND f.leader_tenant = old.tenant AND f.leader_request_id = old.request_id
    RETURNING 1
), leaders AS (
    DELETE FROM journal AS j USING old
    WHERE j.tenant = old.tenant AND j.request_id = old.request_id
    RETURNING 1
)
SELECT (SELECT count(*) FROM leaders) AS finished, (SELECT count(*) FROM followers) AS following;

-- name: purge_started
-- Calls that nobody is at any more: a crash leaves some whose requests were answered by a hit meanwhile, or never came
-- again. An index would cost every call; these are few, so each purge looks through one piece of the table, drawn by
-- chance. Who is silent may only be cut off, and is no worker any more once the heartbeats of others forget it.
WITH heap AS MATERIALIZED (
    SELECT
        greatest($2::bigint / count(*), 1) AS pages,
        max(pg_relation_size(c.oid)) / current_setting('block_size')::bigint AS held
    FROM pg_class AS c
    WHERE c.oid = 'journal'::regclass
        OR c.oid IN (SELECT p.inhrelid FROM pg_inherits AS p WHERE p.inhparent = 'journal'::regclass)
), piece AS MATERIALIZED (
    SELECT floor(random() * (held / pages + 1))::bigint * pages AS page, pages FROM heap
), old AS MATERIALIZED (
    SELECT j.tenant, j.request_id
    FROM journal AS j
    WHERE j.ctid >= (SELECT format('(%s,0)', page)::tid FROM piece)
        AND j.ctid < (SELECT format('(%s,0)', page + pages)::tid FROM piece)
        AND j.state = 'started' AND j.started_at < now() - make_interval(secs => $1::float8)
        AND NOT EXISTS (SELECT FROM workers AS w WHERE w.owner = j.owner)
    LIMIT $3::bigint
    FOR UPDATE OF j SKIP LOCKED
), followers AS (
    DELETE FROM journal AS f USING old
    WHERE f.state = 'following' AND f.leader_tenant = old.tenant AND f.leader_request_id = old.request_id
    RETURNING 1
), leaders AS (
    DELETE FROM journal AS j USING old
    WHERE j.tenant = old.tenant AND j.request_id = old.request_id
    RETURNING 1
)
SELECT (SELECT count(*) FROM leaders) + (SELECT count(*) FROM followers) AS gone;

-- name: heartbeat
WITH gone AS (
    DELETE FROM workers
    WHERE owner IN (
        SELECT w.owner FROM workers AS w
        WHERE w.heartbeat_at < now() - make_interval(secs => $4::float8) AND w.owner <> $1::uuid
        LIMIT 1000 FOR UPDATE SKIP LOCKED
    )
)
INSERT INTO workers (owner, host, pid) VALUES ($1::uuid, $2::text, $3::int)
ON CONFLICT (owner) DO UPDATE
SET heartbeat_at = now(),
    steady_since = CASE
        WHEN workers.heartbeat_at > now() - make_interval(secs => $5::float8) THEN workers.steady_since ELSE now()
    END;

-- name: deregister
DELETE FROM workers WHERE owner = $1::uuid;

-- name: save_checkpoints
INSERT INTO checkpoints AS c (
    grp, topic, partition, committed_offset, metadata, witness_offset, witness_digest
)
SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::bigint[], $5::text[], $6::bigint[], $7::text[])
ON CONFLICT (grp, topic, partition) DO UPDATE
SET committed_offset = excluded.committed_offset, metadata = excluded.metadata, updated_at = now(),
    -- A lane that has read nothing since it was opened names no witness: the last one stands.
    witness_offset = coalesce(excluded.witness_offset, c.witness_offset),
    witness_digest = coalesce(excluded.witness_digest, c.witness_digest)
WHERE excluded.committed_offset >= c.committed_offset;

-- name: load_checkpoint
SELECT committed_offset, metadata, witness_offset, witness_digest
FROM checkpoints WHERE grp = $1 AND topic = $2 AND partition = $3;

-- name: drop_checkpoint
DELETE FROM checkpoints WHERE grp = $1 AND topic = $2 AND partition = $3;

-- name: lock_migrations
SELECT pg_advisory_xact_lock($1::bigint);

-- name: create_schema_migrations
CREATE TABLE IF NOT EXISTS schema_migrations (
    version integer PRIMARY KEY,
    name text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    checksum text NOT NULL
);

-- name: has_schema_migrations
SELECT to_regclass('schema_migrations') IS NOT NULL;

-- name: applied_migrations
SELECT version, checksum FROM schema_migrations ORDER BY version;

-- name: record_migration
INSERT INTO schema_migrations (version, name, checksum) VALUES ($1, $2, $3);
