-- The role that workers and bridges connect as: it can do their work, and change no table.
--
-- Run as the owner of the database, once its tables are there (stratarouter-runtime migrate, as the owner):
--   psql "$OWNER_URL" -f ops/postgres/least-privilege.sql
-- then give the role a password of your own: ALTER ROLE stratarouter_runtime LOGIN PASSWORD '...';
-- After a migration that brings a new table, run it again. tests/integration/test_tls.py holds it.
CREATE ROLE stratarouter_runtime NOINHERIT;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO stratarouter_runtime;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO stratarouter_runtime;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO stratarouter_runtime;
