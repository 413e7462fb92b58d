-- name: standing
SELECT tokens, nanos, held_tokens, held_nanos FROM accounts WHERE scope = ? AND name = ? AND period = ?;

-- name: known_hold
SELECT 1 FROM holds WHERE id = ?;

-- name: add_hold
INSERT INTO holds (id, turn_id, replica, tokens, nanos, accounts, since_ns) VALUES (?, ?, ?, ?, ?, ?, ?);

-- name: hold
INSERT INTO accounts (scope, name, period, tokens, nanos, held_tokens, held_nanos) VALUES (?, ?, ?, 0, 0, ?, ?)
ON CONFLICT (scope, name, period) DO UPDATE SET
    held_tokens = held_tokens + excluded.held_tokens, held_nanos = held_nanos + excluded.held_nanos;

-- name: drop_hold
DELETE FROM holds WHERE id = ? RETURNING tokens, nanos, accounts;

-- name: spend
UPDATE accounts SET
    tokens = tokens + ?, nanos = nanos + ?, held_tokens = held_tokens - ?, held_nanos = held_nanos - ?
WHERE scope = ? AND name = ? AND period = ?;

-- name: lost_holds
SELECT id, turn_id, replica, tokens, nanos FROM holds
WHERE since_ns < ? AND replica NOT IN (SELECT replica FROM replicas WHERE beat_ns >= ?);

-- name: find_accounts
SELECT scope, name, period, tokens, nanos, held_tokens, held_nanos FROM accounts
WHERE period IN (SELECT value FROM json_each(?)) AND (scope, name, period) > (?, ?, ?)
ORDER BY scope, name, period LIMIT ?;

-- name: forget_accounts
DELETE FROM accounts WHERE period > '' AND period < ? AND held_tokens = 0 AND held_nanos = 0;
