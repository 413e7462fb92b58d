-- name: ping
SELECT 1;

-- name: find_session
SELECT id, turns FROM sessions WHERE principal = ? AND session_id = ?;

-- name: begin_session
INSERT INTO sessions (id, principal, session_id, turns, created_ns, updated_ns) VALUES (?, ?, ?, 1, ?, ?);

-- name: continue_session
UPDATE sessions SET turns = ?, updated_ns = ? WHERE id = ?;

-- name: busy
SELECT EXISTS (SELECT 1 FROM turns WHERE conversation_id = ? AND number < ? AND state <> 'ended');

-- name: turn_by_key
SELECT * FROM turn_records WHERE principal = ? AND key = ?;

-- name: add_turn
INSERT INTO turns (
    conversation_id, number, principal, state, owner, generation, cancelled, streams, key, digest, started_ns, webhook,
    webhook_tries, agent, trace_id, request_id, source_ip, message
) VALUES (?, ?, ?, ?, ?, 1, 0, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?, ?);

-- name: past
SELECT message, reply, format, messages, tokens FROM turns
WHERE conversation_id = ? AND number < ? AND outcome = 'success'
ORDER BY number DESC;

-- name: owned
SELECT cancelled, state FROM turns WHERE conversation_id = ? AND number = ? AND owner = ? AND generation = ?;

-- name: run
UPDATE turns SET state = 'running' WHERE conversation_id = ? AND number = ?;

-- name: put_unit
INSERT INTO units (
    conversation_id, number, kind, key, attempt, name, effect, state, digest,
    model_calls, tool_calls, input_tokens, output_tokens, begun_ns, ended_ns, args, result, failure,
    cost_nanos
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (conversation_id, number, kind, key, attempt) DO UPDATE SET
    name = excluded.name, effect = excluded.effect, state = excluded.state, digest = excluded.digest,
    model_calls = excluded.model_calls, tool_calls = excluded.tool_calls,
    input_tokens = excluded.input_tokens, output_tokens = excluded.output_tokens,
    begun_ns = excluded.begun_ns, ended_ns = excluded.ended_ns,
    args = excluded.args, result = excluded.result, failure = excluded.failure, cost_nanos = excluded.cost_nanos;

-- name: put_said
INSERT INTO said (conversation_id, number, last, events) VALUES (?, ?, ?, ?)
ON CONFLICT (conversation_id, number, last) DO UPDATE SET events = excluded.events;

-- name: end_turn
UPDATE turns SET
    state = 'ended', owner = NULL, webhook_due_ns = iif(webhook IS NULL, NULL, ?), unpurged_ns = started_ns + ?,
    outcome = ?, reply = ?, error = ?, detail = ?, model_calls = ?, tool_calls = ?, input_tokens = ?, output_tokens = ?,
    model = ?, via = ?, because = ?, format = ?, tokens = ?, duration_ns = ?, messages = ?, cost_nanos = ?
WHERE conversation_id = ? AND number = ? AND owner = ? AND generation = ?;

-- name: end_units
UPDATE units SET state = iif(effect = 'pure' OR kind = 'model', 'failed', 'in_doubt')
WHERE conversation_id = ? AND number = ? AND state = 'begun';

-- name: give_up
UPDATE turns SET state = ?, owner = NULL WHERE conversation_id = ? AND number = ?;

-- name: turn
SELECT * FROM turn_records WHERE conversation_id = ? AND number = ?;

-- name: find_open
SELECT * FROM turn_records
WHERE (conversation_id, number) IN (
    SELECT conversation_id, number FROM turns INDEXED BY turns_open
    WHERE state <> 'ended' AND (? IS NULL OR principal = ?)
) AND state IN (SELECT value FROM json_each(?)) AND (started_ns, turn_id) < (?, ?)
ORDER BY started_ns DESC, turn_id DESC LIMIT ?;

-- name: find_any
SELECT * FROM turn_records
WHERE state IN (SELECT value FROM json_each(?)) AND (started_ns, turn_id) < (?, ?)
ORDER BY started_ns DESC, turn_id DESC LIMIT ?;

-- name: find_any_of
SELECT * FROM turn_records
WHERE principal = ? AND state IN (SELECT value FROM json_each(?)) AND (started_ns, turn_id) < (?, ?)
ORDER BY started_ns DESC, turn_id DESC LIMIT ?;

-- name: units
SELECT
    kind, key, attempt, name, effect, state, digest, model_calls, tool_calls, input_tokens, output_tokens,
    begun_ns, ended_ns, args, result, failure, cost_nanos
FROM units WHERE conversation_id = ? AND number = ? ORDER BY seq;

-- name: said
SELECT last, events FROM said WHERE conversation_id = ? AND number = ? AND last > ? ORDER BY last;

-- name: state
SELECT state FROM turns WHERE conversation_id = ? AND number = ?;

-- name: cancel
UPDATE turns SET cancelled = 1 WHERE conversation_id = ? AND number = ?;

-- name: resolve
UPDATE units SET state = ?, result = ?, ended_ns = ?
WHERE conversation_id = ? AND number = ? AND kind = ? AND key = ? AND state = 'in_doubt';

-- name: release_resolved
UPDATE turns SET state = 'queued'
WHERE conversation_id = ?1 AND number = ?2 AND state = 'in_doubt' AND NOT EXISTS (
    SELECT 1 FROM units WHERE conversation_id = ?1 AND number = ?2 AND state = 'in_doubt'
);

-- name: beat
INSERT INTO replicas (replica, beat_ns) VALUES (?, ?) ON CONFLICT (replica) DO UPDATE SET beat_ns = excluded.beat_ns;

-- name: to_stop
SELECT conversation_id || '-' || number FROM turns INDEXED BY turns_open
WHERE owner = ? AND cancelled AND state <> 'ended';

-- name: set_back
UPDATE replicas SET beat_ns = ? WHERE beat_ns > ?;

-- name: forget_dead
DELETE FROM replicas WHERE beat_ns < ?;

-- name: free
SELECT * FROM turn_records
WHERE (conversation_id, number) IN (
    SELECT conversation_id, number FROM turns INDEXED BY turns_open
    WHERE state <> 'ended' AND (state <> 'in_doubt' OR cancelled)
        AND (owner IS NULL OR owner <> ? AND owner NOT IN (SELECT replica FROM replicas))
        AND (cancelled OR agent IN (SELECT value FROM json_each(?)))
    ORDER BY started_ns, conversation_id, number LIMIT ?
)
ORDER BY started_ns, conversation_id, number;

-- name: take
UPDATE turns SET state = 'queued', owner = ?, generation = ? WHERE conversation_id = ? AND number = ?;

-- name: forget_replica
DELETE FROM replicas WHERE replica = ?;

-- name: release_all
UPDATE turns INDEXED BY turns_open SET state = 'queued', owner = NULL
WHERE owner = ? AND state <> 'ended'
RETURNING conversation_id || '-' || number;

-- name: webhooks
SELECT webhook_tries, turn_records.*
FROM turns JOIN turn_records USING (conversation_id, number)
WHERE webhook_due_ns <= ? ORDER BY webhook_due_ns LIMIT ?;

-- name: lease_webhook
UPDATE turns SET webhook_due_ns = ? WHERE conversation_id = ? AND number = ?;

-- name: webhook_told
UPDATE turns SET webhook_tries = webhook_tries + 1, webhook_due_ns = ?
WHERE conversation_id = ? AND number = ? AND webhook_due_ns IS NOT NULL;

-- name: sessions
SELECT session_id, turns, created_ns, updated_ns FROM sessions
WHERE principal = ? AND (updated_ns, session_id) < (?, ?)
ORDER BY updated_ns DESC, session_id DESC LIMIT ?;

-- name: turns
SELECT * FROM turn_records WHERE conversation_id = ? AND number < ? ORDER BY number DESC LIMIT ?;

-- name: forget
DELETE FROM sessions WHERE id = ?;

-- name: old
SELECT conversation_id, number FROM turns WHERE unpurged_ns < ? ORDER BY unpurged_ns LIMIT ?;

-- name: purge_units
DELETE FROM units WHERE conversation_id = ? AND number = ?;

-- name: purge_said
DELETE FROM said WHERE conversation_id = ? AND number = ?;

-- name: purge_turn
UPDATE turns SET key = NULL, unpurged_ns = NULL WHERE conversation_id = ? AND number = ?;

-- name: add_key
INSERT INTO api_keys (id, principal, scopes, digest, created_ns, expires_ns, revoked_ns) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO NOTHING;

-- name: keys
SELECT id, principal, scopes, digest, created_ns, expires_ns, revoked_ns FROM api_keys ORDER BY created_ns, id;

-- name: revoke_key
UPDATE api_keys SET revoked_ns = coalesce(revoked_ns, ?) WHERE id = ?;
