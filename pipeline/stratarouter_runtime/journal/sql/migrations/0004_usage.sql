-- What was paid and saved, summed from the usage deltas. Money in thousand-millionths of a US dollar.

-- Every delta that is counted, with what it says about hits: these stand in no journal.
CREATE TABLE usage_deltas (
    id text COLLATE "C" PRIMARY KEY,
    minute bigint NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    exact bigint NOT NULL,
    semantic bigint NOT NULL,
    exact_nano bigint NOT NULL,
    semantic_nano bigint NOT NULL
);
CREATE INDEX usage_deltas_minute ON usage_deltas (minute);

-- Every response that the journal knows too, once for each request id.
CREATE TABLE usage_receipts (
    tenant text COLLATE "C" NOT NULL,
    request_id text COLLATE "C" NOT NULL,
    kind text NOT NULL CHECK (kind IN ('paid', 'coalesced', 'error')),
    -- NULL: the price is unknown.
    nano_usd bigint,
    minute bigint NOT NULL,
    PRIMARY KEY (tenant, request_id)
);
CREATE INDEX usage_receipts_minute ON usage_receipts (minute);

CREATE TABLE usage_windows (
    window_s bigint NOT NULL,
    -- Epoch seconds, a multiple of window_s.
    start bigint NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    route text COLLATE "C" NOT NULL,
    model text COLLATE "C" NOT NULL,
    requests bigint NOT NULL,
    ok bigint NOT NULL,
    errors bigint NOT NULL,
    paid bigint NOT NULL,
    exact bigint NOT NULL,
    semantic bigint NOT NULL,
    coalesced bigint NOT NULL,
    replayed bigint NOT NULL,
    unpriced bigint NOT NULL,
    input_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    saved_tokens bigint NOT NULL,
    paid_nano bigint NOT NULL,
    exact_nano bigint NOT NULL,
    semantic_nano bigint NOT NULL,
    coalesced_nano bigint NOT NULL,
    replayed_nano bigint NOT NULL,
    PRIMARY KEY (window_s, start, tenant, route, model)
);

CREATE TABLE usage_errors (
    window_s bigint NOT NULL,
    start bigint NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    route text COLLATE "C" NOT NULL,
    code text COLLATE "C" NOT NULL,
    responses bigint NOT NULL,
    PRIMARY KEY (window_s, start, tenant, route, code)
);

CREATE TABLE usage_alerts (
    budget text COLLATE "C" NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    window_start bigint NOT NULL,
    percent integer NOT NULL,
    window_s bigint NOT NULL,
    spent_nano bigint NOT NULL,
    spent_tokens bigint NOT NULL,
    raised_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (budget, tenant, window_start, percent)
);
