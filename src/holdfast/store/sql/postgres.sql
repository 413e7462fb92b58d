-- What the store asks of PostgreSQL, 14 or later. What has to see what came while it waited for a lock is a function, in the
-- migrations; the rest is one statement each, and can be changed at any time. `{turn}` stands for the columns of a turn.

-- name: columns
t.turn_id, t.conversation_id, t.number, t.principal, t.session_id, t.agent, t.trace_id, t.request_id, t.source_ip,
t.message, t.started_ns, t.streams, t.key, t.digest, t.webhook, t.state, t.owner, t.generation, t.cancelled, t.outcome,
t.reply, t.error, t.detail, t.model_calls, t.tool_calls, t.input_tokens, t.output_tokens, t.model, t.via, t.because,
t.format, t.tokens, t.duration_ns, t.cost_nanos

-- name: ping
SELECT 1

-- name: accept
SELECT a.verdict, a.conversation, a.place, p.*
FROM accept($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) a
LEFT JOIN LATERAL past(a.conversation, a.place, CASE WHEN a.verdict = 'running' THEN $17::bigint ELSE 0 END) p ON true

-- name: start
SELECT a.verdict, a.conversation, a.place, p.*
FROM start($1, $2, $3) a
LEFT JOIN LATERAL past(a.conversation, a.place, CASE WHEN a.verdict = 'running' THEN $4::bigint ELSE 0 END) p ON true

-- name: put_unit
WITH owned AS (
    SELECT turn_id, cancelled FROM turns WHERE turn_id = $1 AND owner = $2 AND generation = $3 FOR SHARE
), kept AS (
    INSERT INTO units (
        turn_id, kind, key, attempt, name, effect, state, digest, model_calls, tool_calls, input_tokens, output_tokens,
        begun_ns, ended_ns, args, result, failure, cost_nanos
    ) SELECT turn_id, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22 FROM owned
    ON CONFLICT (turn_id, kind, key, attempt) DO UPDATE SET
        name = excluded.name, effect = excluded.effect, state = excluded.state, digest = excluded.digest,
        model_calls = excluded.model_calls, tool_calls = excluded.tool_calls, input_tokens = excluded.input_tokens,
        output_tokens = excluded.output_tokens, begun_ns = excluded.begun_ns, ended_ns = excluded.ended_ns,
        args = excluded.args, result = excluded.result, failure = excluded.failure, cost_nanos = excluded.cost_nanos
), told AS (
    INSERT INTO said SELECT turn_id, $4::bigint, $5::bytea FROM owned WHERE $4 IS NOT NULL
    ON CONFLICT (turn_id, last) DO UPDATE SET events = excluded.events
)
SELECT cancelled FROM owned

-- name: end_turn
WITH ended AS (
    UPDATE turns SET
        state = 'ended', owner = NULL, ticket = NULL, outcome = $7, reply = $8, error = $9, detail = $10,
        model_calls = $11, tool_calls = $12, input_tokens = $13, output_tokens = $14, model = $15, via = $16,
        because = $17, format = $18, tokens = $19, duration_ns = $20::bigint, messages = $21, cost_nanos = $22,
        unpurged_ns = started_ns + $20, webhook_due_ns = CASE WHEN webhook IS NOT NULL THEN now_ns() END
    WHERE turn_id = $1 AND owner = $2 AND generation = $3
    RETURNING turn_id
), told AS (
    INSERT INTO said SELECT turn_id, $4::bigint, $5::bytea FROM ended WHERE $4 IS NOT NULL
    ON CONFLICT (turn_id, last) DO UPDATE SET events = excluded.events
)
SELECT settle(turn_id), tell('ended', turn_id) FROM ended
UNION ALL
SELECT NULL, NULL FROM turns
WHERE $6 AND turn_id = $1 AND generation = $3 AND state = 'ended' AND $2::text IS NOT NULL

-- name: suspend
WITH given_up AS (
    UPDATE turns SET state = 'queued', owner = NULL, ticket = NULL WHERE turn_id = $1 AND owner = $2 AND generation = $3
    RETURNING turn_id
), told AS (
    INSERT INTO said SELECT turn_id, $4::bigint, $5::bytea FROM given_up WHERE $4 IS NOT NULL
    ON CONFLICT (turn_id, last) DO UPDATE SET events = excluded.events
)
SELECT tell('released', turn_id) FROM given_up
UNION ALL
SELECT NULL FROM turns
WHERE $6 AND turn_id = $1 AND generation = $3 AND state = 'queued' AND owner IS NULL AND $2::text IS NOT NULL

-- name: suspend_in_doubt
WITH given_up AS (
    UPDATE turns SET state = 'in_doubt', owner = NULL, ticket = NULL
    WHERE turn_id = $1 AND owner = $2 AND generation = $3
    RETURNING turn_id, cancelled
), kept AS (
    INSERT INTO units (
        turn_id, kind, key, attempt, name, effect, state, digest, model_calls, tool_calls, input_tokens, output_tokens,
        begun_ns, ended_ns, args, result, failure, cost_nanos
    ) SELECT turn_id, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23 FROM given_up
    ON CONFLICT (turn_id, kind, key, attempt) DO UPDATE SET
        name = excluded.name, effect = excluded.effect, state = excluded.state, digest = excluded.digest,
        model_calls = excluded.model_calls, tool_calls = excluded.tool_calls, input_tokens = excluded.input_tokens,
        output_tokens = excluded.output_tokens, begun_ns = excluded.begun_ns, ended_ns = excluded.ended_ns,
        args = excluded.args, result = excluded.result, failure = excluded.failure, cost_nanos = excluded.cost_nanos
), told AS (
    INSERT INTO said SELECT turn_id, $4::bigint, $5::bytea FROM given_up WHERE $4 IS NOT NULL
    ON CONFLICT (turn_id, last) DO UPDATE SET events = excluded.events
)
SELECT CASE WHEN cancelled THEN tell('released', turn_id) END FROM given_up
UNION ALL
SELECT NULL FROM turns
WHERE $6 AND turn_id = $1 AND generation = $3 AND state = 'in_doubt' AND $2::text IS NOT NULL

-- name: turn
SELECT {turn} FROM turn_records t WHERE turn_id = $1

-- name: find_turns
SELECT {turn} FROM turn_records t
WHERE state IN ($1, $2, $3, $4) AND (started_ns, turn_id) < ($5, $6)
ORDER BY started_ns DESC, turn_id DESC LIMIT $7

-- name: find_turns_of
SELECT {turn} FROM turn_records t
WHERE state IN ($1, $2, $3, $4) AND (started_ns, turn_id) < ($5, $6) AND principal = $8
ORDER BY started_ns DESC, turn_id DESC LIMIT $7

-- name: units
SELECT
    kind, key, attempt, name, effect, state, digest, model_calls, tool_calls, input_tokens, output_tokens,
    begun_ns, ended_ns, args, result, failure, cost_nanos
FROM units WHERE turn_id = $1 ORDER BY place

-- name: said
SELECT last, events FROM said WHERE turn_id = $1 AND last > $2 ORDER BY last

-- name: cancel
WITH asked AS (
    UPDATE turns SET cancelled = true WHERE turn_id = $1 AND state <> 'ended' RETURNING turn_id, state
)
SELECT tell('cancelled', turn_id), CASE WHEN state = 'in_doubt' THEN tell('released', turn_id) END FROM asked

-- name: resolve
SELECT resolve($1, $2, $3, $4, $5)

-- name: beat
WITH beaten AS (
    INSERT INTO replicas AS r VALUES ($1, now_ns()) ON CONFLICT (id) DO UPDATE SET beat_ns = excluded.beat_ns
)
SELECT turn_id FROM turns WHERE owner = $1 AND cancelled AND state <> 'ended'

-- name: disown
WITH given_up AS (
    UPDATE turns t SET state = 'queued', owner = NULL, ticket = NULL
    FROM (
        SELECT turn_id FROM turns WHERE state <> 'ended' AND ticket = ANY (string_to_array($1, ' '))
        ORDER BY turn_id FOR NO KEY UPDATE
    ) unsure
    WHERE t.turn_id = unsure.turn_id
    RETURNING t.turn_id
)
SELECT tell('released', turn_id) FROM given_up

-- name: claim
WITH dead AS (
    DELETE FROM replicas WHERE id IN (
        SELECT id FROM replicas WHERE beat_ns < (SELECT now_ns()) - $2::bigint FOR UPDATE SKIP LOCKED
    )
), free AS (
    SELECT turn_id FROM turns u
    WHERE (cancelled AND state <> 'ended' OR state IN ('queued', 'running') AND agent = ANY ($5::text[]))
        AND owner IS DISTINCT FROM $1 AND NOT EXISTS (
        SELECT FROM replicas r WHERE r.id = u.owner AND r.beat_ns >= (SELECT now_ns()) - $2::bigint
    )
    ORDER BY started_ns, turn_id LIMIT $3 FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE turns t SET state = 'queued', owner = $1, generation = t.generation + 1, ticket = $4
FROM free WHERE t.turn_id = free.turn_id
RETURNING {turn}

-- name: leave
WITH gone AS (
    DELETE FROM replicas WHERE id = $1
), given_up AS (
    UPDATE turns t SET state = 'queued', owner = NULL, ticket = NULL
    FROM (
        SELECT turn_id FROM turns WHERE state <> 'ended' AND owner = $1 ORDER BY turn_id FOR NO KEY UPDATE
    ) mine
    WHERE t.turn_id = mine.turn_id
    RETURNING t.turn_id
)
SELECT tell('released', turn_id) FROM given_up

-- name: take_webhooks
UPDATE turns t SET webhook_due_ns = now_ns() + $2::bigint
FROM (
    SELECT turn_id, webhook_due_ns FROM turns WHERE webhook_due_ns <= (SELECT now_ns())
    ORDER BY webhook_due_ns LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED
) due
WHERE t.turn_id = due.turn_id
RETURNING {turn}, t.webhook_tries

-- name: webhook_told
UPDATE turns SET webhook_tries = webhook_tries + 1, webhook_due_ns = now_ns() + $2::bigint
WHERE turn_id = $1 AND state = 'ended' AND webhook IS NOT NULL

-- name: sessions
SELECT session_id, turns, created_ns, updated_ns FROM sessions
WHERE principal = $1 AND (updated_ns, session_id) < ($2, $3)
ORDER BY updated_ns DESC, session_id DESC LIMIT $4

-- name: turns
SELECT {turn} FROM sessions s LEFT JOIN LATERAL (
    SELECT * FROM turn_records r WHERE r.conversation_id = s.id AND r.number < $3 ORDER BY r.number DESC LIMIT $4
) t ON true
WHERE s.principal = $1 AND s.session_id = $2
ORDER BY t.number DESC

-- name: forget
SELECT forget($1, $2)

-- name: purge
WITH old AS (
    SELECT turn_id FROM turns WHERE unpurged_ns < $1 ORDER BY unpurged_ns LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED
), no_units AS (
    DELETE FROM units USING old WHERE units.turn_id = old.turn_id
), nothing_said AS (
    DELETE FROM said USING old WHERE said.turn_id = old.turn_id
)
UPDATE turns t SET key = NULL, unpurged_ns = NULL FROM old WHERE t.turn_id = old.turn_id RETURNING t.turn_id

-- name: add_key
INSERT INTO api_keys VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (id) DO NOTHING

-- name: keys
SELECT * FROM api_keys ORDER BY created_ns, id

-- name: revoke_key
UPDATE api_keys SET revoked_ns = coalesce(revoked_ns, $1) WHERE id = $2 RETURNING id

-- name: reserve
SELECT * FROM reserve($1, $2, $3, $4, $5, $6::text[], $7::text[], $8::text[], $9::bigint[], $10::bigint[])

-- name: settle
SELECT settle_holds($1::text[], $2::bigint[], $3::bigint[])

-- name: write_off
SELECT * FROM write_off($1)

-- name: standings
SELECT coalesce(a.tokens, 0), coalesce(a.nanos, 0), coalesce(a.held_tokens, 0), coalesce(a.held_nanos, 0)
FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY w (scope, name, period, place)
LEFT JOIN accounts a USING (scope, name, period)
ORDER BY w.place

-- name: find_accounts
SELECT scope, name, period, tokens, nanos, held_tokens, held_nanos FROM accounts
WHERE period = ANY ($1::text[]) AND (scope, name, period) > ($2, $3, $4)
ORDER BY scope, name, period LIMIT $5

-- name: forget_accounts
DELETE FROM accounts WHERE period > '' AND period < $1 AND held_tokens = 0 AND held_nanos = 0

-- name: note
INSERT INTO notes (kind, about, id, at_ns, data)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bytea[])
ON CONFLICT (kind, about, id) DO UPDATE SET at_ns = excluded.at_ns, data = excluded.data

-- name: trim_notes
DELETE FROM notes WHERE kind = $1 AND about = $2 AND id IN (
    SELECT id FROM notes WHERE kind = $1 AND about = $2 ORDER BY at_ns DESC, id DESC OFFSET $3
)

-- name: notes
SELECT kind, about, id, at_ns, data FROM notes WHERE kind = $1 AND about = $2 ORDER BY at_ns DESC, id DESC

-- name: forget_notes
DELETE FROM notes WHERE kind = $1 AND about = $2 RETURNING id
