-- name: ended_turns_that_do_not_say_how
SELECT conversation_id || '-' || number FROM turns
WHERE state = 'ended' AND (outcome IS NULL OR reply IS NULL OR duration_ns IS NULL OR tokens IS NULL OR format IS NULL);

-- name: turns_that_say_how_they_ended_and_have_not
SELECT conversation_id || '-' || number FROM turns
WHERE state <> 'ended' AND (outcome IS NOT NULL OR webhook_due_ns IS NOT NULL OR unpurged_ns IS NOT NULL);

-- name: running_turns_without_an_owner
SELECT conversation_id || '-' || number FROM turns WHERE state = 'running' AND owner IS NULL;

-- name: turns_with_an_owner_that_have_ended_or_are_in_doubt
SELECT conversation_id || '-' || number FROM turns WHERE state IN ('ended', 'in_doubt') AND owner IS NOT NULL;

-- name: turns_that_run_before_an_earlier_one_has_ended
SELECT conversation_id || '-' || number FROM turns
WHERE state = 'running' AND EXISTS (
    SELECT 1 FROM turns AS earlier
    WHERE earlier.conversation_id = turns.conversation_id AND earlier.number < turns.number AND earlier.state <> 'ended'
);

-- name: turns_in_doubt_without_a_unit_in_doubt
SELECT conversation_id || '-' || number FROM turns
WHERE state = 'in_doubt' AND NOT EXISTS (
    SELECT 1 FROM units
    WHERE units.conversation_id = turns.conversation_id AND units.number = turns.number AND units.state = 'in_doubt'
);

-- name: ended_turns_with_a_unit_that_is_begun
SELECT DISTINCT conversation_id || '-' || number FROM units JOIN turns USING (conversation_id, number)
WHERE units.state = 'begun' AND turns.state = 'ended';

-- name: turns_in_a_state_there_is_not
SELECT conversation_id || '-' || number FROM turns WHERE state NOT IN ('queued', 'running', 'in_doubt', 'ended');

-- name: units_in_a_state_there_is_not
SELECT conversation_id || '-' || number || ' ' || kind || ' ' || key FROM units
WHERE state NOT IN ('begun', 'done', 'failed', 'in_doubt');

-- name: conversations_whose_turns_are_not_numbered_from_1_to_their_count
SELECT sessions.id FROM sessions LEFT JOIN turns ON turns.conversation_id = sessions.id
GROUP BY sessions.id
HAVING count(number) <> sessions.turns OR max(number) <> sessions.turns OR min(number) <> 1 OR sessions.turns < 1;

-- name: turns_of_another_principal_than_their_session
SELECT conversation_id || '-' || number FROM turns JOIN sessions ON sessions.id = conversation_id
WHERE turns.principal <> sessions.principal;

-- name: accounts_that_hold_something_else_than_calls_do
SELECT trim(scope || ' ' || name || ' ' || period) FROM accounts
WHERE instr(CAST(name AS BLOB), x'00') = 0 -- What is in JSON ends there for SQLite.
AND (held_tokens, held_nanos) <> (
    SELECT coalesce(sum(holds.tokens), 0), coalesce(sum(holds.nanos), 0) FROM holds, json_each(holds.accounts) AS one
    WHERE json_extract(one.value, '$[0]') = accounts.scope AND json_extract(one.value, '$[1]') = accounts.name
        AND json_extract(one.value, '$[2]') = accounts.period
);
