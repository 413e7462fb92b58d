-- What must never be, as a list of those that are; what one row can tell is a constraint of its table.

-- name: turns_with_another_id_than_their_place
SELECT turn_id FROM turns WHERE turn_id <> conversation_id || '-' || number

-- name: turns_of_another_session_than_their_conversation
SELECT turn_id FROM turns t JOIN sessions s ON s.id = t.conversation_id
WHERE (t.principal, t.session_id) <> (s.principal, s.session_id)

-- name: ended_turns_that_do_not_say_how
SELECT turn_id FROM turns WHERE state = 'ended'
AND (reply IS NULL OR detail IS NULL OR duration_ns IS NULL OR tokens IS NULL OR format IS NULL OR model_calls IS NULL)

-- name: turns_that_wait_to_be_purged_or_told_and_have_not_ended
SELECT turn_id FROM turns WHERE state <> 'ended' AND (webhook_due_ns IS NOT NULL OR unpurged_ns IS NOT NULL)

-- name: turns_that_run_before_an_earlier_one_has_ended
SELECT turn_id FROM turns t WHERE state = 'running' AND EXISTS (
    SELECT FROM turns e WHERE e.conversation_id = t.conversation_id AND e.number < t.number AND e.state <> 'ended'
)

-- name: turns_in_doubt_without_a_unit_in_doubt
SELECT turn_id FROM turns t WHERE state = 'in_doubt' AND NOT EXISTS (
    SELECT FROM units u WHERE u.turn_id = t.turn_id AND u.state = 'in_doubt'
)

-- name: ended_turns_with_a_unit_that_is_begun
SELECT DISTINCT turn_id FROM units JOIN turns t USING (turn_id) WHERE units.state = 'begun' AND t.state = 'ended'

-- name: conversations_whose_turns_are_not_numbered_from_1_to_their_count
SELECT s.id FROM sessions s LEFT JOIN turns t ON t.conversation_id = s.id
GROUP BY s.id HAVING count(t.number) <> s.turns OR max(t.number) <> s.turns OR min(t.number) <> 1 OR s.turns < 1

-- name: accounts_that_hold_something_else_than_calls_do
SELECT trim(a.scope || ' ' || a.name || ' ' || a.period) FROM accounts a
WHERE (a.held_tokens, a.held_nanos) <> (
    SELECT coalesce(sum(h.tokens), 0), coalesce(sum(h.nanos), 0)
    FROM holds h, unnest(h.scopes, h.names, h.periods) w (scope, name, period)
    WHERE (w.scope, w.name, w.period) = (a.scope, a.name, a.period)
)
