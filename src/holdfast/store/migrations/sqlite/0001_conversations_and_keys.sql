CREATE TABLE sessions (
    id          TEXT PRIMARY KEY,
    principal   TEXT NOT NULL,
    session_id  TEXT NOT NULL,
    turns       INTEGER NOT NULL,
    created_ns  INTEGER NOT NULL,
    updated_ns  INTEGER NOT NULL,
    UNIQUE (principal, session_id)
) STRICT;

CREATE INDEX sessions_latest ON sessions (principal, updated_ns, session_id);

CREATE TABLE turns (
    conversation_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    number          INTEGER NOT NULL,
    agent           TEXT NOT NULL,
    trace_id        TEXT NOT NULL,
    request_id      TEXT NOT NULL,
    source_ip       TEXT NOT NULL,
    message         TEXT NOT NULL,
    reply           TEXT NOT NULL,
    outcome         TEXT NOT NULL,
    error           TEXT,
    model_calls     INTEGER NOT NULL,
    tool_calls      INTEGER NOT NULL,
    input_tokens    INTEGER NOT NULL,
    output_tokens   INTEGER NOT NULL,
    format          TEXT NOT NULL,
    messages        BLOB,
    tokens          INTEGER NOT NULL,
    started_ns      INTEGER NOT NULL,
    duration_ns     INTEGER NOT NULL,
    PRIMARY KEY (conversation_id, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE api_keys (
    id          TEXT PRIMARY KEY,
    principal   TEXT NOT NULL,
    scopes      TEXT NOT NULL,
    digest      BLOB NOT NULL,
    created_ns  INTEGER NOT NULL,
    expires_ns  INTEGER,
    revoked_ns  INTEGER
) STRICT;
