-- Since when a worker's heartbeats have come without a gap: only such a worker may take another one for dead.
ALTER TABLE workers ADD COLUMN steady_since timestamptz NOT NULL DEFAULT now();

-- A record that was read from the partition: tells a topic from a later one of the same name.
ALTER TABLE checkpoints ADD COLUMN witness_offset bigint, ADD COLUMN witness_digest text;
