-- A request that is answered twice after a crash may be a hit (or an error) the first time it is counted and the paid
-- call the second, under one id. The first delta as it came, so that it can be taken back for the second.
ALTER TABLE usage_deltas ADD COLUMN added bytea;
