-- Keys compare byte by byte (COLLATE "C"): as the runtime sorts them, and safe from a change of the system's collation.

CREATE TABLE journal (
    tenant text COLLATE "C" NOT NULL,
    request_id text COLLATE "C" NOT NULL,
    -- NULL: a result was recorded for a row that nobody had begun; it fits any payload.
    payload_hash text,
    route_id text NOT NULL DEFAULT '',
    state text NOT NULL CHECK (state IN ('started', 'following', 'succeeded', 'failed')),
    owner uuid NOT NULL,
    leader_tenant text COLLATE "C",
    leader_request_id text COLLATE "C",
    starts integer NOT NULL,
    -- JSON as bytes: text and jsonb cannot hold U+0000, which an answer may.
    answer bytea,
    error bytea,
    attempts bytea,
    source text,
    created_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    finished_at timestamptz,
    PRIMARY KEY (tenant, request_id),
    CONSTRAINT followers_have_leaders CHECK (
        (state = 'following') = (leader_tenant IS NOT NULL)
        AND (leader_tenant IS NULL) = (leader_request_id IS NULL)
    ),
    CONSTRAINT finished_has_result CHECK (
        (state = 'succeeded') = (answer IS NOT NULL)
        AND (state = 'failed') = (error IS NOT NULL)
        AND (state IN ('succeeded', 'failed')) = (finished_at IS NOT NULL)
    )
);

CREATE INDEX journal_finished ON journal (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX journal_followers ON journal (leader_tenant, leader_request_id) WHERE state = 'following';

CREATE TABLE workers (
    owner uuid PRIMARY KEY,
    host text NOT NULL,
    pid integer NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    heartbeat_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE checkpoints (
    grp text COLLATE "C" NOT NULL,
    topic text COLLATE "C" NOT NULL,
    partition integer NOT NULL,
    committed_offset bigint NOT NULL,
    metadata text NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (grp, topic, partition)
);
