-- The journal in 64 partitions by a hash of its key, for a server whose table has outgrown one: smaller indexes, and a
-- vacuum of each on its own. The key stays unique over all of them, and the runtime notices no difference.
--
-- Run once, as the owner, after `stratarouter-runtime migrate` and before anything is journaled, then
-- ops/postgres/least-privilege.sql: the new table needs its grants anew.
--   psql "$OWNER_URL" --single-transaction -f ops/postgres/partitioned.sql
LOCK TABLE journal;
DO $$
BEGIN
    IF EXISTS (SELECT FROM journal) THEN
        RAISE EXCEPTION 'the journal holds rows: make it anew, or move them yourself';
    END IF;
    ALTER TABLE journal RENAME TO journal_whole;
    CREATE TABLE journal (LIKE journal_whole INCLUDING ALL) PARTITION BY HASH (tenant, request_id);
    DROP TABLE journal_whole;
    FOR number IN 0..63 LOOP
        EXECUTE format(
            'CREATE TABLE journal_%s PARTITION OF journal FOR VALUES WITH (MODULUS 64, REMAINDER %s)', number, number
        );
    END LOOP;
END
$$;
