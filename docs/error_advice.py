"""What each reader of an error does about it; those who need do nothing are left out."""

TO_DO: dict[str, dict[str, str]] = {
    "HoldfastError": {"Developer": "Catch it to catch them all; raise one of those below it."},
    "Invalid": {"Caller": "Correct the request, as the detail says, then send it again."},
    "NotJson": {"Caller": "Send a JSON object in UTF-8."},
    "Unprocessable": {
        "Caller": "Correct the field the detail names; the OpenAPI document lists what the route takes.",
        "Developer": "Say in the detail which field it is and what is allowed.",
    },
    "KeyReused": {"Caller": "Take a new key for what is new; repeat a request under its key exactly as it was."},
    "NotFound": {
        "Caller": "Check the id and the credential: what belongs to somebody else looks absent.",
        "Developer": "Raise it for what is hidden as well as for what is absent, with the same words.",
    },
    "MethodNotAllowed": {"Caller": "Use a method from the `Allow` header."},
    "NotInDoubt": {"Operator": "Look at the turn: somebody has said it before, or the call's end is known."},
    "BodyTimeout": {
        "Caller": "Send the body again, without pauses.",
        "Operator": "If many callers see it, look at the network before the server, then at `server.body_timeout_s`.",
    },
    "TooLarge": {"Caller": "Send less.", "Operator": "Raise `server.max_body_bytes` if such bodies are expected."},
    "NotSupportedMedia": {"Caller": "Send `Content-Type: application/json`."},
    "Denied": {"Caller": "Do not repeat it.", "Operator": "Change the rule if it should have been allowed."},
    "Unauthenticated": {
        "Caller": "Send a valid API key as `Authorization: Bearer …` or `X-API-Key: …`.",
        "Operator": "Create a key for the caller if they should have one.",
        "Developer": "Never say which of unknown, revoked and expired it was.",
    },
    "Forbidden": {
        "Caller": "Use a credential that covers this.",
        "Operator": "Give the caller a credential with the scope the detail names, if they should have it.",
    },
    "Blocked": {
        "Caller": "Nobody sees it who did not make the call: the agent reads it in the tool's place.",
        "Operator": "Look at the turn's detections; declare the tool as `repeatable` where calling it again is meant.",
        "Developer": "Let the agent do what the text says, and not the same again.",
    },
    "PriceUnknown": {
        "Caller": "Tell the operator; nothing was spent.",
        "Operator": "Give the model's price in `budget.prices`, as the detail says, or lift the limits in dollars.",
    },
    "Refused": {
        "Caller": "Try again later, after `Retry-After` where it is given.",
        "Operator": "If it lasts, look at the log for what is short.",
        "Developer": "Raise it, or one below it, only where nothing was done.",
    },
    "SessionBusy": {
        "Caller": "Wait for the session's running turn, or use another session.",
        "Operator": "Look for turns that take long; `server.session_wait_s` is how long a message waits.",
    },
    "Draining": {
        "Caller": "Send the request again: another replica, or this one after its restart, will take it.",
        "Operator": "Expected at a restart; if callers notice, raise `shutdown.lame_duck_s`.",
    },
    "HandedOver": {
        "Caller": "Ask again with the same `Idempotency-Key`, or look at the turn by its id: it goes on.",
        "Operator": "Expected at a restart; with more of `shutdown.deadline_s` more turns finish where they began.",
        "Developer": "Let it through: the agent is run again elsewhere, and its calls return what they returned.",
    },
    "NotOwner": {
        "Caller": "Ask again with the same `Idempotency-Key`, or look at the turn by its id: it goes on.",
        "Operator": "This process was silent for `store.lease_s`: look for a blocked loop or a paused machine.",
        "Developer": "Let it through: whatever is written now is refused.",
    },
    "RateLimited": {
        "Caller": "Wait for `retry_after`, then send it again. `key_class` says whose limit it is: your own is `user`.",
        "Operator": "`user` and `all` are `resilience.user_per_s`, `resilience.all_per_s` and their bursts; "
        "`credential` is `resilience.model_per_minute` or `resilience.model_tokens_per_minute`; `target` is a provider "
        "that named a time.",
        "Developer": "Catch it around a model or tool call the agent can do without.",
    },
    "CircuitOpen": {
        "Caller": "Try again after `Retry-After`; without one, a person has to act first.",
        "Operator": "`holdfast breakers list` names the circuit. `credential` is an API key that was refused or has no "
        "credit: with a new key restart, with new credit reset the circuit. If it lasts, set `llm.fallbacks`.",
        "Developer": "Catch it to answer without what is failing; it was not called.",
    },
    "QueueFull": {
        "Caller": "Try again later, after `Retry-After`.",
        "Operator": "Look for what became slow. If it is not, raise `resilience.model_concurrent` or "
        "`resilience.tool_concurrent`.",
        "Developer": "Make fewer calls at a time.",
    },
    "Shed": {
        "Caller": "Wait for `Retry-After`. Send what can wait with `Priority: u=7`.",
        "Operator": "Add processes, or raise `resilience.turns` if this one has processor time and memory to spare.",
    },
    "BudgetExhausted": {
        "Caller": "Wait for `Retry-After`, where it is given; else ask for less, or in another session.",
        "Operator": "Look at `holdfast budgets` for who spent what; raise the limit the detail names if that is meant.",
        "Developer": "Ask `guard.budget.left()` before it comes to this, and end the turn with what there is.",
    },
    "TimedOut": {
        "Caller": "Check what has happened before repeating a request that changes something.",
        "Operator": "Look at the turn's model and tool calls for the slow one.",
    },
    "DeadlineExceeded": {
        "Caller": "Ask for less in one turn, or try again.",
        "Operator": "Look for the slow call; raise `resilience.turn_s` if turns are meant to take longer.",
        "Developer": "Let it through: no call can succeed any more.",
    },
    "AttemptTimedOut": {
        "Caller": "Try again.",
        "Operator": "Look at the provider or tool the detail names; its limit is one of the `resilience` settings.",
        "Developer": "Catch it around a call the agent can do without.",
    },
    "Failed": {"Caller": "Report the `trace_id`.", "Operator": "Look the `trace_id` up in the log."},
    "ModelUnavailable": {
        "Caller": "Try again later, after `Retry-After` where it is given.",
        "Operator": "Look at the provider's status page and at your quota with them.",
        "Developer": "Catch it to answer without the model.",
    },
    "ModelRejected": {
        "Caller": "Report the `trace_id`.",
        "Operator": "Check `llm.api_key`, `llm.model` and `llm.base_url`; at level `debug` the log has the reason.",
        "Developer": "Check what the agent sent: too long, or a parameter this model does not take.",
    },
    "StreamBroken": {
        "Caller": "Ask again, and drop what has come: the next answer begins anew.",
        "Operator": "If it is frequent, look at the provider, and at proxies that cut long connections.",
        "Developer": "Keep what has come only if a part of an answer is of use.",
    },
    "ModelMalformed": {
        "Caller": "Try again, or ask differently.",
        "Operator": "If it is frequent, the model is too weak for this agent.",
        "Developer": "Make the agent's output type more forgiving, or its instructions more exact.",
    },
    "AgentFailed": {
        "Caller": "Report the `trace_id`.",
        "Operator": "Hand its developer the place the log names; at level `debug` it has the traceback.",
    },
    "TurnCancelled": {
        "Caller": "Send the message again; check what has happened first, if it changes something.",
        "Operator": "Give running turns more time with `shutdown.deadline_s`.",
        "Developer": "Let cancellation through, and clean up in `finally`.",
    },
    "TurnAbandoned": {
        "Caller": "Report the `turn_id`; do not repeat it.",
        "Operator": "Look at why the servers that ran it died: out of memory, most often.",
    },
    "StoppedPartial": {
        "Caller": "Nobody sees it as an error: the turn ends with 200 and what it had, or with a question.",
        "Operator": "Read the turn's report; `POST /v1/sessions/{id}/reset` lets a stopped session go on.",
        "Developer": "Let it through: whatever the agent makes of it, the turn ends.",
    },
    "InDoubt": {
        "Caller": "Wait: the turn goes on once somebody has looked. Asking again with the same key tells.",
        "Operator": "Find out whether the call happened, then say so: `holdfast turns resolve`.",
        "Developer": "Declare what the tool does to the world, or how to find out: `@effect`.",
    },
    "Diverged": {
        "Caller": "Report the `turn_id`; look at what has happened before repeating it.",
        "Operator": "Look at the turn's calls: those that are done have happened.",
        "Developer": "Let the agent ask for the same when it is told the same: no chance, no clock, no state.",
    },
    "UnitFailed": {
        "Caller": "Report the `turn_id`.",
        "Developer": "Raise an exception of Python's own, or one of these, where the agent is to tell it from others.",
    },
    "StoreUnavailable": {
        "Caller": "Try again later.",
        "Operator": "Check the database that `store.url` names, and that its disk is not full.",
    },
    "Misconfigured": {
        "Caller": "Never seen by a caller: the server did not start.",
        "Operator": "Correct the settings as the lines on the terminal say; `holdfast config check` repeats them.",
        "Developer": "Say in the detail which setting it is, what is allowed and what to do.",
    },
}
