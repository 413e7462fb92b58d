DROP VIEW turn_records;

ALTER TABLE turns ADD COLUMN cost_nanos INTEGER;

-- What is large stays last, so that a row can be read without it.
ALTER TABLE turns ADD COLUMN kept BLOB;

UPDATE turns SET kept = messages WHERE messages IS NOT NULL;

ALTER TABLE turns DROP COLUMN messages;

ALTER TABLE turns RENAME COLUMN kept TO messages;

CREATE VIEW turn_records AS
SELECT
    turns.conversation_id || '-' || number AS turn_id, conversation_id, number, turns.principal, session_id, agent,
    trace_id, request_id, source_ip, message, started_ns, streams, key, digest, webhook, state, owner, generation,
    cancelled, outcome, reply, error, detail, model_calls, tool_calls, input_tokens, output_tokens, model, via, because,
    format, tokens, duration_ns, cost_nanos
FROM turns JOIN sessions ON sessions.id = turns.conversation_id;

ALTER TABLE units ADD COLUMN cost_nanos INTEGER NOT NULL DEFAULT 0;

CREATE TABLE accounts (
    scope       TEXT NOT NULL,
    name        TEXT NOT NULL,
    period      TEXT NOT NULL,      -- A day, a month, or empty for as long as there is the session.
    tokens      INTEGER NOT NULL,
    nanos       INTEGER NOT NULL,
    held_tokens INTEGER NOT NULL,   -- Of the calls under way, as `holds` has them.
    held_nanos  INTEGER NOT NULL,
    PRIMARY KEY (scope, name, period)
) STRICT, WITHOUT ROWID;

CREATE TABLE holds (
    id          TEXT PRIMARY KEY,
    turn_id     TEXT NOT NULL,
    replica     TEXT NOT NULL,
    tokens      INTEGER NOT NULL,
    nanos       INTEGER NOT NULL,
    accounts    TEXT NOT NULL,      -- JSON: arrays of scope, name and period.
    since_ns    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER forget_session_account AFTER DELETE ON sessions BEGIN
    DELETE FROM accounts WHERE scope = 'session' AND name = old.id;
END;
