-- The roles of the stack and what each may do. Run once, with psql, in the database of the stack, by a superuser or by
-- the owner of the database who may make roles, as the administrator of a server that somebody else runs is; running
-- it again changes nothing but the passwords.
--
--   transactions_migrator   owns the schema; only the `migrate` service signs in as it
--   transactions_app        reads and writes rows, nothing else; what a stolen backend could do
--
-- The passwords come from the files that these environment variables name, never from a command line: from the first
-- line, since a file holds two while a password is being changed.
\set ON_ERROR_STOP on
\set migrator_password `head -n 1 "$POSTGRES_MIGRATOR_PASSWORD_FILE"`
\set app_password `head -n 1 "$POSTGRES_APP_PASSWORD_FILE"`

BEGIN;

SELECT format('CREATE ROLE %I LOGIN', name)
FROM (VALUES ('transactions_migrator'), ('transactions_app')) AS wanted (name)
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
\gexec

-- Who is no superuser gives things only to a role that it may become; for as long as this takes.
DO $$
BEGIN
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        GRANT transactions_migrator TO CURRENT_USER WITH INHERIT TRUE, SET TRUE;
    END IF;
END
$$;

ALTER ROLE transactions_migrator PASSWORD :'migrator_password';
ALTER ROLE transactions_app PASSWORD :'app_password';

-- Nobody else connects, and nobody but the migrator makes anything.
REVOKE ALL ON DATABASE :"DBNAME" FROM PUBLIC;
GRANT CONNECT, TEMPORARY ON DATABASE :"DBNAME" TO transactions_migrator;
GRANT CONNECT ON DATABASE :"DBNAME" TO transactions_app;
-- CREATE on the database is what a trusted extension asks for.
GRANT CREATE ON DATABASE :"DBNAME" TO transactions_migrator;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
ALTER SCHEMA public OWNER TO transactions_migrator;
GRANT USAGE ON SCHEMA public TO transactions_app;

-- What the migrator makes from now on, the application may use.
ALTER DEFAULT PRIVILEGES FOR ROLE transactions_migrator IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO transactions_app;
ALTER DEFAULT PRIVILEGES FOR ROLE transactions_migrator IN SCHEMA public
    GRANT USAGE ON SEQUENCES TO transactions_app;

DO $$
BEGIN
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        REVOKE transactions_migrator FROM CURRENT_USER;
    END IF;
END
$$;

COMMIT;
