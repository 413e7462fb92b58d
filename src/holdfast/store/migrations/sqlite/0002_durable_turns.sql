CREATE TABLE durable_turns (
    conversation_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    number          INTEGER NOT NULL,
    principal       TEXT NOT NULL,
    state           TEXT NOT NULL,
    owner           TEXT,
    generation      INTEGER NOT NULL,
    cancelled       INTEGER NOT NULL,
    streams         INTEGER NOT NULL,
    key             TEXT,
    digest          BLOB NOT NULL,
    started_ns      INTEGER NOT NULL,
    unpurged_ns     INTEGER,            -- When it ended; NULL before, and once it was purged.
    webhook         TEXT,
    webhook_due_ns  INTEGER,            -- NULL where it has not ended, or was told.
    webhook_tries   INTEGER NOT NULL,
    agent           TEXT NOT NULL,
    trace_id        TEXT NOT NULL,
    request_id      TEXT NOT NULL,
    source_ip       TEXT NOT NULL,
    message         TEXT NOT NULL,
    outcome         TEXT,               -- NULL until it has ended, as are those that say how.
    reply           TEXT,
    error           TEXT,
    detail          TEXT,
    model_calls     INTEGER,
    tool_calls      INTEGER,
    input_tokens    INTEGER,
    output_tokens   INTEGER,
    model           TEXT,
    via             TEXT,
    because         TEXT,
    format          TEXT,
    tokens          INTEGER,
    duration_ns     INTEGER,
    messages        BLOB,               -- Last, so that a row can be read without what is large.
    PRIMARY KEY (conversation_id, number)
) STRICT;                               -- With a rowid: without, a row over a quarter of a page takes two.

INSERT INTO durable_turns
SELECT
    conversation_id, number, principal, 'ended', NULL, 1, 0, 0, NULL, x'', started_ns, NULL, NULL, NULL, 0,
    agent, trace_id, request_id, source_ip, message, outcome, reply, error, '',
    model_calls, tool_calls, input_tokens, output_tokens, NULL, NULL, NULL, format, tokens, duration_ns, messages
FROM turns JOIN sessions ON sessions.id = turns.conversation_id;

DROP TABLE turns;

ALTER TABLE durable_turns RENAME TO turns;

CREATE INDEX turns_open ON turns (conversation_id, number) WHERE state <> 'ended';

CREATE INDEX turns_latest ON turns (started_ns);

CREATE INDEX turns_of_principal ON turns (principal, started_ns);

CREATE UNIQUE INDEX turns_by_key ON turns (principal, key) WHERE key IS NOT NULL;

CREATE INDEX turns_unpurged ON turns (unpurged_ns) WHERE unpurged_ns IS NOT NULL;

CREATE INDEX turns_to_tell ON turns (webhook_due_ns) WHERE webhook_due_ns IS NOT NULL;

CREATE VIEW turn_records AS
SELECT
    turns.conversation_id || '-' || number AS turn_id, conversation_id, number, turns.principal, session_id, agent,
    trace_id, request_id, source_ip, message, started_ns, streams, key, digest, webhook, state, owner, generation,
    cancelled, outcome, reply, error, detail, model_calls, tool_calls, input_tokens, output_tokens, model, via, because,
    format, tokens, duration_ns
FROM turns JOIN sessions ON sessions.id = turns.conversation_id;

CREATE TABLE units (
    seq             INTEGER PRIMARY KEY,    -- The order in which they began.
    conversation_id TEXT NOT NULL,
    number          INTEGER NOT NULL,
    kind            TEXT NOT NULL,
    key             TEXT NOT NULL,
    attempt         INTEGER NOT NULL,
    name            TEXT NOT NULL,
    effect          TEXT NOT NULL,
    state           TEXT NOT NULL,
    digest          BLOB NOT NULL,
    model_calls     INTEGER NOT NULL,
    tool_calls      INTEGER NOT NULL,
    input_tokens    INTEGER NOT NULL,
    output_tokens   INTEGER NOT NULL,
    begun_ns        INTEGER NOT NULL,
    ended_ns        INTEGER,
    args            BLOB,
    result          BLOB,
    failure         BLOB,
    UNIQUE (conversation_id, number, kind, key, attempt),
    FOREIGN KEY (conversation_id, number) REFERENCES turns ON DELETE CASCADE
) STRICT;

CREATE TABLE said (
    conversation_id TEXT NOT NULL,
    number          INTEGER NOT NULL,
    last            INTEGER NOT NULL,
    events          BLOB NOT NULL,
    PRIMARY KEY (conversation_id, number, last),
    FOREIGN KEY (conversation_id, number) REFERENCES turns ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE TABLE replicas (
    replica TEXT PRIMARY KEY,
    beat_ns INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
