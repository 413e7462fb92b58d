-- name: ping
SELECT 1;

-- name: find_session
SELECT id, turns FROM sessions WHERE principal = ? AND session_id = ?;

-- name: remembered
SELECT message, reply, format, messages, tokens FROM turns
WHERE conversation_id = ? AND outcome = 'success'
ORDER BY number DESC;

-- name: begin_session
INSERT INTO sessions (id, principal, session_id, turns, created_ns, updated_ns) VALUES (?, ?, ?, 1, ?, ?);

-- name: continue_session
UPDATE sessions SET turns = ?, updated_ns = ?
WHERE id = ? AND principal = ? AND session_id = ? AND turns = ? - 1;

-- name: add_turn
INSERT INTO turns (
    conversation_id, number, agent, trace_id, request_id, source_ip, message, reply, outcome, error,
    model_calls, tool_calls, input_tokens, output_tokens, format, messages, tokens, started_ns, duration_ns
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: sessions
SELECT session_id, turns, created_ns, updated_ns FROM sessions
WHERE principal = ? AND (updated_ns, session_id) < (?, ?)
ORDER BY updated_ns DESC, session_id DESC LIMIT ?;

-- name: turns
SELECT
    number, agent, trace_id, request_id, source_ip, message, reply, outcome, error,
    model_calls, tool_calls, input_tokens, output_tokens, format, messages, tokens, started_ns, duration_ns
FROM turns WHERE conversation_id = ? AND number < ?
ORDER BY number DESC LIMIT ?;

-- name: forget
DELETE FROM sessions WHERE principal = ? AND session_id = ?;

-- name: add_key
INSERT INTO api_keys (id, principal, scopes, digest, created_ns, expires_ns, revoked_ns) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO NOTHING;

-- name: keys
SELECT id, principal, scopes, digest, created_ns, expires_ns, revoked_ns FROM api_keys ORDER BY created_ns, id;

-- name: revoke_key
UPDATE api_keys SET revoked_ns = coalesce(revoked_ns, ?) WHERE id = ?;
