ALTER TABLE turns ADD COLUMN cost_nanos bigint;
ALTER TABLE units ADD COLUMN cost_nanos bigint NOT NULL DEFAULT 0;

CREATE OR REPLACE VIEW turn_records AS
SELECT
    turn_id, conversation_id, number, principal, session_id, agent, trace_id, request_id, source_ip, message, started_ns,
    streams, key, digest, webhook, state, owner, generation, cancelled, outcome, reply, error, detail, model_calls,
    tool_calls, input_tokens, output_tokens, model, via, because, format, tokens, duration_ns, cost_nanos
FROM turns;

-- `period` is a day, a month, or empty for as long as there is the session; what is held is that of the calls under way.
CREATE TABLE accounts (
    scope       text COLLATE "C" NOT NULL,
    name        text COLLATE "C" NOT NULL,
    period      text COLLATE "C" NOT NULL,
    tokens      bigint NOT NULL DEFAULT 0,
    nanos       bigint NOT NULL DEFAULT 0,
    held_tokens bigint NOT NULL DEFAULT 0,
    held_nanos  bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (scope, name, period)
) WITH (fillfactor = 50);

CREATE TABLE holds (
    id          text COLLATE "C" PRIMARY KEY,
    turn_id     text NOT NULL,
    replica     text COLLATE "C" NOT NULL,
    tokens      bigint NOT NULL,
    nanos       bigint NOT NULL,
    scopes      text[] NOT NULL,
    names       text[] NOT NULL,
    periods     text[] NOT NULL,
    since_ns    bigint NOT NULL
);

CREATE INDEX holds_since ON holds (since_ns);

CREATE FUNCTION forget_session_account() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM accounts a WHERE a.scope = 'session' AND a.name = OLD.id;
    RETURN NULL;
END $$;

CREATE TRIGGER forget_session_account AFTER DELETE ON sessions
FOR EACH ROW EXECUTE FUNCTION forget_session_account();

-- Holds tokens and money on all of the accounts, or on none. Locks them in their order, so that no two can each wait for
-- the other, and gives them as they are afterwards, in the order in which they were asked for.
CREATE FUNCTION reserve(
    a_id text, a_turn text, a_replica text, want_tokens bigint, want_nanos bigint,
    some_scopes text[], some_names text[], some_periods text[], caps_tokens bigint[], caps_nanos bigint[]
) RETURNS TABLE (fits boolean, tokens bigint, nanos bigint, held_tokens bigint, held_nanos bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    enough boolean;
BEGIN
    INSERT INTO accounts (scope, name, period)
    SELECT w.scope, w.name, w.period FROM unnest(some_scopes, some_names, some_periods) w (scope, name, period)
    ORDER BY w.scope COLLATE "C", w.name COLLATE "C", w.period COLLATE "C"
    ON CONFLICT DO NOTHING;
    PERFORM FROM accounts a
    WHERE (a.scope, a.name, a.period) IN (
        SELECT w.scope, w.name, w.period FROM unnest(some_scopes, some_names, some_periods) w (scope, name, period)
    )
    ORDER BY a.scope, a.name, a.period FOR NO KEY UPDATE;
    enough := EXISTS (SELECT FROM holds h WHERE h.id = a_id);
    IF NOT enough AND NOT EXISTS (
        SELECT FROM accounts a
        JOIN unnest(some_scopes, some_names, some_periods, caps_tokens, caps_nanos) w (scope, name, period, t, n)
        USING (scope, name, period)
        WHERE a.tokens + a.held_tokens + want_tokens > w.t OR a.nanos + a.held_nanos + want_nanos > w.n
    ) THEN
        enough := true;
        INSERT INTO holds VALUES (
            a_id, a_turn, a_replica, want_tokens, want_nanos, some_scopes, some_names, some_periods, now_ns()
        );
        UPDATE accounts a
        SET held_tokens = a.held_tokens + want_tokens, held_nanos = a.held_nanos + want_nanos
        FROM unnest(some_scopes, some_names, some_periods) w (scope, name, period)
        WHERE (a.scope, a.name, a.period) = (w.scope, w.name, w.period);
    END IF;
    RETURN QUERY
    SELECT enough, a.tokens, a.nanos, a.held_tokens, a.held_nanos
    FROM unnest(some_scopes, some_names, some_periods) WITH ORDINALITY w (scope, name, period, place)
    JOIN accounts a USING (scope, name, period)
    ORDER BY w.place;
END $$;

-- Turns what calls held into what they used; for holds that are no more, nothing. Locks as `reserve` does.
CREATE FUNCTION settle_holds(some_ids text[], used_tokens bigint[], used_nanos bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM accounts a
    WHERE (a.scope, a.name, a.period) IN (
        SELECT w.scope, w.name, w.period
        FROM holds h, unnest(h.scopes, h.names, h.periods) w (scope, name, period) WHERE h.id = ANY (some_ids)
    )
    ORDER BY a.scope, a.name, a.period FOR NO KEY UPDATE;
    WITH dropped AS (
        DELETE FROM holds h USING unnest(some_ids, used_tokens, used_nanos) u (id, tokens, nanos)
        WHERE h.id = u.id
        RETURNING h.scopes, h.names, h.periods, h.tokens, h.nanos, u.tokens AS used_tokens, u.nanos AS used_nanos
    ), sums AS (
        SELECT
            w.scope, w.name, w.period, sum(d.used_tokens)::bigint AS tokens, sum(d.used_nanos)::bigint AS nanos,
            sum(d.tokens)::bigint AS held_tokens, sum(d.nanos)::bigint AS held_nanos
        FROM dropped d, unnest(d.scopes, d.names, d.periods) w (scope, name, period)
        GROUP BY w.scope, w.name, w.period
    )
    UPDATE accounts a SET
        tokens = a.tokens + s.tokens, nanos = a.nanos + s.nanos,
        held_tokens = a.held_tokens - s.held_tokens, held_nanos = a.held_nanos - s.held_nanos
    FROM sums s WHERE (a.scope, a.name, a.period) = (s.scope, s.name, s.period);
END $$;

-- Counts all of what the dead held as spent, and gives it.
CREATE FUNCTION write_off(lease_ns bigint)
RETURNS TABLE (id text, turn_id text, replica text, tokens bigint, nanos bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    lost text[];
    lost_tokens bigint[];
    lost_nanos bigint[];
BEGIN
    SELECT array_agg(h.id), array_agg(h.tokens), array_agg(h.nanos) INTO lost, lost_tokens, lost_nanos FROM holds h
    WHERE h.since_ns < now_ns() - lease_ns AND NOT EXISTS (
        SELECT FROM replicas r WHERE r.id = h.replica AND r.beat_ns >= now_ns() - lease_ns
    );
    IF lost IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY SELECT h.id, h.turn_id, h.replica, h.tokens, h.nanos FROM holds h WHERE h.id = ANY (lost);
    PERFORM settle_holds(lost, lost_tokens, lost_nanos);
END $$;
