-- What was spent under each budget, by tenant and window; written with the results that it sums.
CREATE TABLE spending (
    budget text COLLATE "C" NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    -- Epoch seconds.
    window_start bigint NOT NULL,
    window_s bigint NOT NULL,
    -- A thousand-millionth of a US dollar: a short call of a small model costs less than a millionth.
    nano_usd bigint NOT NULL,
    tokens bigint NOT NULL,
    calls bigint NOT NULL,
    PRIMARY KEY (budget, tenant, window_start)
);
