-- Text is compared byte by byte, as the other stores do. What is named `_ns` is in wall-clock nanoseconds.

CREATE TABLE sessions (
    id          text COLLATE "C" PRIMARY KEY,
    principal   text COLLATE "C" NOT NULL,
    session_id  text COLLATE "C" NOT NULL,
    turns       bigint NOT NULL,
    created_ns  bigint NOT NULL,
    updated_ns  bigint NOT NULL,
    UNIQUE (principal, session_id)
);

CREATE INDEX sessions_latest ON sessions (principal, updated_ns, session_id);

-- `ticket` names the statement by which the owner came to own it. `unpurged_ns` is when it ended, while it can be purged.
CREATE TABLE turns (
    turn_id         text COLLATE "C" PRIMARY KEY,
    conversation_id text COLLATE "C" NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    number          bigint NOT NULL,
    principal       text COLLATE "C" NOT NULL,
    session_id      text COLLATE "C" NOT NULL,
    agent           text NOT NULL,
    trace_id        text NOT NULL,
    request_id      text NOT NULL,
    source_ip       text NOT NULL,
    message         text NOT NULL,
    started_ns      bigint NOT NULL,
    streams         boolean NOT NULL,
    key             text COLLATE "C",
    digest          bytea NOT NULL,
    webhook         text,
    state           text NOT NULL CHECK (state IN ('queued', 'running', 'in_doubt', 'ended')),
    owner           text COLLATE "C",
    generation      bigint NOT NULL DEFAULT 1,
    ticket          text COLLATE "C",
    cancelled       boolean NOT NULL DEFAULT false,
    outcome         text,
    reply           text,
    error           text,
    detail          text,
    model_calls     bigint,
    tool_calls      bigint,
    input_tokens    bigint,
    output_tokens   bigint,
    model           text,
    via             text,
    because         text,
    format          text,
    tokens          bigint,
    duration_ns     bigint,
    messages        bytea,
    unpurged_ns     bigint,
    webhook_due_ns  bigint,
    webhook_tries   bigint NOT NULL DEFAULT 0,
    UNIQUE (conversation_id, number),
    CHECK ((state = 'ended') = (outcome IS NOT NULL)),
    CHECK (owner IS NULL OR state IN ('queued', 'running')),
    CHECK (owner IS NOT NULL OR state <> 'running')
) WITH (fillfactor = 80);

CREATE UNIQUE INDEX turns_keys ON turns (principal, key) WHERE key IS NOT NULL;
CREATE INDEX turns_latest ON turns (started_ns, turn_id);
CREATE INDEX turns_latest_of ON turns (principal, started_ns, turn_id);
CREATE INDEX turns_open ON turns (conversation_id, number) WHERE state <> 'ended';
CREATE INDEX turns_unpurged ON turns (unpurged_ns) WHERE unpurged_ns IS NOT NULL;
CREATE INDEX turns_webhooks ON turns (webhook_due_ns) WHERE webhook_due_ns IS NOT NULL;

CREATE VIEW turn_records AS
SELECT
    turn_id, conversation_id, number, principal, session_id, agent, trace_id, request_id, source_ip, message, started_ns,
    streams, key, digest, webhook, state, owner, generation, cancelled, outcome, reply, error, detail, model_calls,
    tool_calls, input_tokens, output_tokens, model, via, because, format, tokens, duration_ns
FROM turns;

-- `place` tells in which order they began.
CREATE TABLE units (
    turn_id         text COLLATE "C" NOT NULL REFERENCES turns (turn_id) ON DELETE CASCADE,
    kind            text NOT NULL CHECK (kind IN ('model', 'tool')),
    key             text COLLATE "C" NOT NULL,
    attempt         bigint NOT NULL,
    place           bigint GENERATED ALWAYS AS IDENTITY,
    name            text NOT NULL,
    effect          text NOT NULL,
    state           text NOT NULL CHECK (state IN ('begun', 'done', 'failed', 'in_doubt')),
    digest          bytea NOT NULL,
    model_calls     bigint NOT NULL,
    tool_calls      bigint NOT NULL,
    input_tokens    bigint NOT NULL,
    output_tokens   bigint NOT NULL,
    begun_ns        bigint NOT NULL,
    ended_ns        bigint,
    args            bytea,
    result          bytea,
    failure         bytea,
    PRIMARY KEY (turn_id, kind, key, attempt)
) WITH (fillfactor = 80);

CREATE TABLE said (
    turn_id text COLLATE "C" NOT NULL REFERENCES turns (turn_id) ON DELETE CASCADE,
    last    bigint NOT NULL,
    events  bytea NOT NULL,
    PRIMARY KEY (turn_id, last)
);

CREATE TABLE replicas (
    id      text COLLATE "C" PRIMARY KEY,
    beat_ns bigint NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE api_keys (
    id          text COLLATE "C" PRIMARY KEY,
    principal   text NOT NULL,
    scopes      text NOT NULL,
    digest      bytea NOT NULL,
    created_ns  bigint NOT NULL,
    expires_ns  bigint,
    revoked_ns  bigint
);

CREATE FUNCTION now_ns() RETURNS bigint LANGUAGE sql VOLATILE AS
$$ SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000 $$;

-- Tells every replica what happened to a turn, once the transaction is committed.
CREATE FUNCTION tell(what text, a_turn text) RETURNS void LANGUAGE sql VOLATILE AS
$$ SELECT pg_notify('holdfast:' || current_schema(), what || ':' || a_turn) $$;

-- Keeps a new turn. Locks the key, then the session, so that no two can each wait for the other; what is asked after a
-- lock is seen as it is by then. The verdict is the turn's state, or `again`, `key_reused` or `session_busy`.
CREATE FUNCTION accept(
    new_id text, a_principal text, a_session text, a_agent text, a_trace text, a_request text, a_source text,
    a_message text, a_owner text, a_ticket text, accepted_ns bigint, a_streams boolean, a_key text, a_digest bytea,
    a_webhook text, waits boolean, OUT verdict text, OUT conversation text, OUT place bigint
) LANGUAGE plpgsql AS $$
DECLARE
    known record;
    busy boolean;
BEGIN
    IF a_key IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock(
            hashtextextended(current_schema() || ' ' || a_principal || ' ' || a_key, 0)
        );
        SELECT t.conversation_id, t.number, t.digest INTO known FROM turns t
        WHERE t.principal = a_principal AND t.key = a_key;
        IF FOUND THEN
            conversation := known.conversation_id;
            place := known.number;
            verdict := CASE WHEN known.digest = a_digest THEN 'again' ELSE 'key_reused' END;
            RETURN;
        END IF;
    END IF;
    LOOP
        SELECT s.id, s.turns + 1 INTO conversation, place FROM sessions s
        WHERE s.principal = a_principal AND s.session_id = a_session FOR NO KEY UPDATE;
        EXIT WHEN FOUND;
        INSERT INTO sessions (id, principal, session_id, turns, created_ns, updated_ns)
        VALUES (new_id, a_principal, a_session, 0, accepted_ns, accepted_ns)
        ON CONFLICT (principal, session_id) DO NOTHING;
    END LOOP;
    busy := EXISTS (SELECT FROM turns t WHERE t.conversation_id = conversation AND t.state <> 'ended');
    IF busy AND NOT waits THEN
        verdict := 'session_busy';
        RETURN;
    END IF;
    verdict := CASE WHEN busy THEN 'queued' ELSE 'running' END;
    INSERT INTO turns (
        turn_id, conversation_id, number, principal, session_id, agent, trace_id, request_id, source_ip, message,
        started_ns, streams, key, digest, webhook, state, owner, ticket
    ) VALUES (
        conversation || '-' || place, conversation, place, a_principal, a_session, a_agent, a_trace, a_request, a_source,
        a_message, accepted_ns, a_streams, a_key, a_digest, a_webhook, verdict, a_owner, a_ticket
    );
    UPDATE sessions s SET turns = place, updated_ns = accepted_ns WHERE s.id = conversation;
END $$;

-- The turns before this one that may fit into the window, newest first, and perhaps one more. A character is kept as two
-- where U+0001 is the first of them.
CREATE FUNCTION past(a_conversation text, below bigint, window_tokens bigint)
RETURNS TABLE (message text, reply text, format text, messages bytea, tokens bigint) LANGUAGE plpgsql AS $$
DECLARE
    room bigint := window_tokens;
    plain bigint;
BEGIN
    IF room <= 0 THEN
        RETURN;
    END IF;
    FOR message, reply, format, messages, tokens IN
        SELECT t.message, t.reply, t.format, t.messages, t.tokens FROM turns t
        WHERE t.conversation_id = a_conversation AND t.number < below AND t.outcome = 'success'
        ORDER BY t.number DESC
    LOOP
        RETURN NEXT;
        plain := (length(replace(message || reply, E'\x01', '')) + 3) / 4;
        room := room - CASE WHEN messages IS NULL THEN plain ELSE least(plain, tokens) END;
        EXIT WHEN room <= 0;
    END LOOP;
END $$;

CREATE FUNCTION start(
    a_turn text, a_owner text, a_generation bigint, OUT verdict text, OUT conversation text, OUT place bigint
) LANGUAGE plpgsql AS $$
BEGIN
    verdict := 'not_owner';
    SELECT t.conversation_id, t.number INTO conversation, place FROM turns t
    WHERE t.turn_id = a_turn AND t.owner = a_owner AND t.generation = a_generation FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    verdict := CASE WHEN EXISTS (
        SELECT FROM turns t WHERE t.conversation_id = conversation AND t.number < place AND t.state <> 'ended'
    ) THEN 'queued' ELSE 'running' END;
    UPDATE turns t SET state = verdict WHERE t.turn_id = a_turn AND t.state <> verdict;
END $$;

-- What becomes of the units that are under way when their turn ends: asked once the turn is locked.
CREATE FUNCTION settle(a_turn text) RETURNS void LANGUAGE sql VOLATILE AS $$
    UPDATE units SET state = CASE WHEN effect = 'pure' OR kind = 'model' THEN 'failed' ELSE 'in_doubt' END
    WHERE turn_id = a_turn AND state = 'begun'
$$;

CREATE FUNCTION resolve(a_turn text, a_kind text, a_key text, a_result bytea, at_ns bigint) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM turns t WHERE t.turn_id = a_turn FOR NO KEY UPDATE;
    UPDATE units u
    SET state = CASE WHEN a_result IS NULL THEN 'failed' ELSE 'done' END, result = a_result, ended_ns = at_ns
    WHERE u.turn_id = a_turn AND u.kind = a_kind AND u.key = a_key AND u.state = 'in_doubt';
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE turns t SET state = 'queued' WHERE t.turn_id = a_turn AND t.state = 'in_doubt' AND NOT EXISTS (
        SELECT FROM units u WHERE u.turn_id = a_turn AND u.state = 'in_doubt'
    );
    IF FOUND THEN
        PERFORM tell('released', a_turn);
    END IF;
    RETURN true;
END $$;

CREATE FUNCTION forget(a_principal text, a_session text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    conversation text;
BEGIN
    SELECT s.id INTO conversation FROM sessions s
    WHERE s.principal = a_principal AND s.session_id = a_session FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 'unknown';
    END IF;
    IF EXISTS (SELECT FROM turns t WHERE t.conversation_id = conversation AND t.state <> 'ended') THEN
        RETURN 'session_busy';
    END IF;
    DELETE FROM sessions s WHERE s.id = conversation;
    RETURN 'forgotten';
END $$;
