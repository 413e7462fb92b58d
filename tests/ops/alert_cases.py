"""
When each alert speaks, and when it only just does not: series as promtool takes them, and what it has to say then.

``rising(6)`` is a counter that goes up by 6 a minute. A scene lasts ``minutes`` and is looked at when they are over.
"""

from __future__ import annotations

from dataclasses import dataclass

JOB = 'job="holdfast", instance="a"'


OPEN = 'resource="tool:search", state="open"'


def steady(value: float, minutes: int = 60) -> str:
    return f"{value}x{minutes}"


def rising(per_minute: float, minutes: int = 60, then: float | None = None, then_minutes: int = 0) -> str:
    """A counter: so much a minute, and then so much."""
    first = f"0+{per_minute}x{minutes}"
    return first if then is None else f"{first} {per_minute * minutes + then}+{then}x{then_minutes}"


@dataclass(frozen=True)
class Scene:
    """
    Some minutes, and what comes of them.

    Attributes:
        series: Values by series; what is scraped is of the job ``holdfast`` and the instance ``a``.
        labels: Those of the alert, without its severity and name; None where it is silent.
        says: Its description.
    """

    title: str
    series: dict[str, str]
    minutes: int = 30
    labels: dict[str, str] | None = None
    summary: str = ""
    says: str = ""


@dataclass(frozen=True)
class Scenes:
    fires: list[Scene]
    silent: list[Scene]
    when_nothing_is_scraped: Scene | None = None
    evaluated: str = "1m"


def turns(outcome: str, more: str = JOB, agent: str = "assistant") -> str:
    return f'agent_turns_total{{{more}, agent="{agent}", outcome="{outcome}"}}'


def suspended(because: str, more: str = JOB) -> str:
    return f'agent_turns_suspended_total{{{more}, agent="assistant", because="{because}"}}'


def resumed(instance: str) -> str:
    return f'agent_turns_resumed_total{{job="holdfast", instance="{instance}", agent="assistant"}}'


def model_calls(status: str) -> str:
    return f'agent_llm_calls_total{{{JOB}, provider="anthropic", model="claude", status="{status}"}}'


def tool_calls(status: str) -> str:
    return f'agent_tool_calls_total{{{JOB}, agent="assistant", tool="search", status="{status}"}}'


def buckets(metric: str, labels: str, below: str, above: str, slow_share: float) -> dict[str, str]:
    """A histogram of 100 a minute, of which this share is above the edge ``below`` and not above the next one."""
    fast = 100 - 100 * slow_share
    return {
        f'{metric}_bucket{{{labels}, le="{below}"}}': rising(fast),
        f'{metric}_bucket{{{labels}, le="{above}"}}': rising(100),
        f'{metric}_bucket{{{labels}, le="+Inf"}}': rising(100),
    }


def objective(slo: str, ratio: float) -> dict[str, str]:
    return {f'agent_slo_objective_ratio{{{JOB}, slo="{slo}"}}': steady(ratio, 6_000)}


AVAILABILITY = objective("availability", 0.999)


def available(good: str, bad: str) -> dict[str, str]:
    return {**AVAILABILITY, turns("success"): good, turns("error"): bad}


def burning(slo: str, times: str, title: str, series: dict[str, str], minutes: int, *, fast: bool = True) -> Scene:
    words = "is being used up fast." if fast else "will not last for 30 days."
    return Scene(
        title,
        series,
        minutes,
        {"job": "holdfast", "slo": slo},
        f"The error budget of {slo} {words}",
        f"holdfast uses up its budget {times} times as fast as 30 days allow.",
    )


CASES: dict[str, Scenes] = {
    "HoldfastAbsent": Scenes(
        [
            Scene(
                "every target is down",
                {f"up{{{JOB}}}": steady(0), 'up{job="holdfast", instance="b"}': steady(0)},
                labels={},
                summary="No Holdfast process can be scraped.",
                says="Every process is gone, or Prometheus cannot reach any. No other alert can tell of anything now.",
            )
        ],
        [Scene("one is left", {f"up{{{JOB}}}": steady(0), 'up{job="holdfast", instance="b"}': steady(1)})],
        Scene(
            "no target at all",
            {'up{job="other", instance="a"}': steady(1)},
            labels={},
            summary="No Holdfast process can be scraped.",
            says="Every process is gone, or Prometheus cannot reach any. No other alert can tell of anything now.",
        ),
    ),
    "HoldfastBudgetBurnsFast": Scenes(
        [
            burning(
                "availability",
                "20",
                "2 % have failed for a little more than an hour, after a good night",
                available(rising(100, 290, 98, 70), rising(0, 290, 2, 70)),
                360,
            ),
            burning(
                "availability",
                "10",
                "1 % fail for six hours",
                available(rising(99, 361), rising(1, 361)),
                360,
            ),
            burning(
                "errors",
                "20",
                "a fifth of the requests is answered with 5xx",
                {
                    **objective("errors", 0.99),
                    f'agent_http_requests_total{{{JOB}, method="POST", route="/chat", code="200"}}': rising(4, 120),
                    f'agent_http_requests_total{{{JOB}, method="POST", route="/v1/chat", code="200"}}': rising(4, 120),
                    f'agent_http_requests_total{{{JOB}, method="POST", route="/chat", code="503"}}': rising(2, 120),
                    f'agent_http_requests_total{{{JOB}, method="GET", route="/metrics", code="200"}}': rising(900, 120),
                },
                120,
            ),
            burning(
                "first_token",
                "16",
                "four in five first tokens come after two seconds",
                {
                    **objective("first_token", 0.95),
                    f'agent_turn_first_token_seconds_bucket{{{JOB}, agent="assistant", le="2.0"}}': rising(2, 120),
                    f'agent_turn_first_token_seconds_bucket{{{JOB}, agent="assistant", le="+Inf"}}': rising(10, 120),
                    f'agent_turn_first_token_seconds_count{{{JOB}, agent="assistant"}}': rising(10, 120),
                },
                120,
            ),
        ],
        [
            Scene("0.5 % fail", available(rising(995, 361), rising(5, 361)), 360),
            Scene("2 % failed, an hour ago", available(rising(98, 60, 100, 60), rising(2, 60, 0, 60)), 120),
            Scene("all of nine turns failed", available(rising(0, 420), rising(0, 360, 0.15, 60)), 420),
            Scene(
                "guardrails block half",
                {**AVAILABILITY, turns("success"): rising(5, 120), turns("guardrail_blocked"): rising(5, 120)},
                120,
            ),
            Scene(
                "there is no objective",
                {turns("success"): rising(5, 120), turns("error"): rising(5, 120)},
                120,
            ),
        ],
        evaluated="2m",
    ),
    "HoldfastBudgetBurnsSlowly": Scenes(
        [
            burning(
                "availability",
                "4",
                "0.4 % fail for a day",
                available(rising(996, 1_440), rising(4, 1_440)),
                1_440,
                fast=False,
            ),
            burning(
                "availability",
                "2",
                "0.2 % fail for three days",
                available(rising(998, 4_320), rising(2, 4_320)),
                4_320,
                fast=False,
            ),
        ],
        [
            Scene("0.09 % fail for three days", available(rising(9_991, 4_320), rising(9, 4_320)), 4_320),
            Scene(
                "0.4 % failed until this morning",
                available(rising(996, 900, 1_000, 540), rising(4, 900, 0, 540)),
                1_440,
            ),
        ],
        evaluated="5m",
    ),
    "HoldfastTurnsFailing": Scenes(
        [
            Scene(
                "four in ten succeed",
                {turns("success"): rising(4), turns("error"): rising(3), turns("timeout"): rising(3)},
                labels={"job": "holdfast", "agent": "assistant"},
                summary="Most turns of the agent assistant fail.",
                says="Only 40% of them succeeded in the last 10 minutes.",
            )
        ],
        [
            Scene("half succeed", {turns("success"): rising(5), turns("error"): rising(5)}),
            Scene("nine turns in ten minutes", {turns("success"): rising(0), turns("error"): rising(0.9)}),
            Scene("guardrails block most", {turns("success"): rising(4), turns("guardrail_blocked"): rising(60)}),
            Scene("callers leave", {turns("success"): rising(4), turns("cancelled"): rising(60)}),
        ],
    ),
    "HoldfastTurnsSlow": Scenes(
        [
            Scene(
                "two in a hundred take between one and two minutes",
                buckets("agent_turn_duration_seconds", f'{JOB}, agent="assistant"', "60.0", "120.0", 0.02),
                labels={"job": "holdfast", "agent": "assistant"},
                summary="Turns of the agent assistant are slow.",
                says="One in a hundred takes longer than 1m 30s.",
            )
        ],
        [
            Scene(
                "one in two hundred does",
                buckets("agent_turn_duration_seconds", f'{JOB}, agent="assistant"', "60.0", "120.0", 0.005),
            )
        ],
    ),
    "HoldfastTurnsInDoubt": Scenes(
        [
            Scene(
                "one, half an hour ago, and nobody has looked",
                {suspended("in_doubt"): "0x30 1x30"},
                60,
                {"job": "holdfast", "agent": "assistant"},
                "Turns of the agent assistant wait for somebody to say what became of a call.",
                "1 in the last hour. They do not go on by themselves.",
            ),
        ],
        [
            Scene("none in the last hour", {suspended("in_doubt"): "0x30 1x90"}, 120),
            Scene("handed over", {suspended("in_doubt"): steady(0), suspended("handed_over"): rising(1)}, 60),
        ],
    ),
    "HoldfastTurnsTakenOver": Scenes(
        [
            Scene(
                "a process dies, and two others take six turns each",
                {resumed("a"): "0x30 6x30", resumed("b"): "0x30 6x30"},
                60,
                {"job": "holdfast"},
                "Processes of holdfast leave turns behind.",
                "12 turns in the last hour went on in another process than they began in.",
            ),
        ],
        [
            Scene("nine", {resumed("a"): "0x30 5x30", resumed("b"): "0x30 4x30"}, 60),
            Scene("many, an hour and more ago", {resumed("a"): "0x30 40x90"}, 120),
        ],
    ),
    "HoldfastNoTraffic": Scenes(
        [
            Scene(
                "nobody asks",
                {turns("success"): steady(7)},
                labels={"job": "holdfast"},
                summary="Nobody asks holdfast anything.",
                says="No turn ended in the last 10 minutes. That may be the night, or something in front of it.",
            )
        ],
        [Scene("one in ten minutes", {turns("success"): rising(0.11)})],
    ),
    "HoldfastModelFailing": Scenes(
        [
            Scene(
                "a fifth fails",
                {model_calls("ok"): rising(8), model_calls("error"): rising(1), model_calls("timeout"): rising(1)},
                labels={"job": "holdfast", "provider": "anthropic", "model": "claude"},
                summary="Calls of claude fail.",
                says="20% of the attempts at anthropic failed or timed out.",
            )
        ],
        [
            Scene("a tenth fails", {model_calls("ok"): rising(9), model_calls("error"): rising(1)}),
            Scene("few calls", {model_calls("ok"): rising(0.5), model_calls("error"): rising(0.4)}),
            Scene("refused, not failed", {model_calls("ok"): rising(8), model_calls("rejected"): rising(80)}),
        ],
    ),
    "HoldfastModelSlow": Scenes(
        [
            Scene(
                "two in a hundred take between five and ten seconds",
                buckets(
                    "agent_llm_duration_seconds", f'{JOB}, provider="anthropic", model="claude"', "5.0", "10.0", 0.02
                ),
                labels={"job": "holdfast", "provider": "anthropic", "model": "claude"},
                summary="claude is slow.",
                says="One call in a hundred takes longer than 7.5s.",
            )
        ],
        [
            Scene(
                "one in two hundred does",
                buckets(
                    "agent_llm_duration_seconds", f'{JOB}, provider="anthropic", model="claude"', "5.0", "10.0", 0.005
                ),
            )
        ],
    ),
    "HoldfastRetriesSurge": Scenes(
        [
            Scene(
                "six in a hundred",
                {
                    model_calls("ok"): rising(94),
                    model_calls("error"): rising(6),
                    f'agent_retries_total{{{JOB}, operation="model", outcome="scheduled"}}': rising(6),
                },
                labels={"job": "holdfast"},
                summary="Many model calls are made again.",
                says="6% of the model calls of holdfast are made again.",
            )
        ],
        [
            Scene(
                "five in a hundred",
                {
                    model_calls("ok"): rising(100),
                    f'agent_retries_total{{{JOB}, operation="model", outcome="scheduled"}}': rising(5),
                },
            ),
            Scene(
                "nine in ten minutes",
                {
                    model_calls("ok"): rising(2),
                    f'agent_retries_total{{{JOB}, operation="model", outcome="scheduled"}}': rising(0.9),
                },
            ),
            Scene(
                "given up at once",
                {
                    model_calls("error"): rising(100),
                    f'agent_retries_total{{{JOB}, operation="model", outcome="gave_up"}}': rising(100),
                },
            ),
        ],
    ),
    "HoldfastFallbacksSurge": Scenes(
        [
            Scene(
                "six in a hundred",
                {model_calls("ok"): rising(100), f'agent_fallbacks_total{{{JOB}, operation="model"}}': rising(6)},
                labels={"job": "holdfast"},
                summary="Other models answer than those that are meant to.",
                says="6% of the answers of holdfast came from a fallback.",
            )
        ],
        [
            Scene(
                "a twentieth",
                {model_calls("ok"): rising(100), f'agent_fallbacks_total{{{JOB}, operation="model"}}': rising(5)},
            ),
            Scene(
                "nine in ten minutes",
                {model_calls("ok"): rising(1), f'agent_fallbacks_total{{{JOB}, operation="model"}}': rising(0.9)},
            ),
        ],
    ),
    "HoldfastTokenSpendHigh": Scenes(
        [
            Scene(
                "1.2 million in an hour, both types together",
                {
                    f'agent_llm_tokens_total{{{JOB}, provider="a", model="claude", type="{kind}"}}': rising(10_000, 90)
                    for kind in ("input", "output")
                },
                90,
                {"job": "holdfast", "model": "claude"},
                "claude uses many tokens.",
                "1.2M tokens in the last hour.",
            )
        ],
        [
            Scene(
                "a million",
                {f'agent_llm_tokens_total{{{JOB}, provider="a", model="claude", type="input"}}': rising(16_600, 90)},
                90,
            )
        ],
    ),
    "HoldfastToolFailing": Scenes(
        [
            Scene(
                "a fifth fails",
                {tool_calls("ok"): rising(8), tool_calls("error"): rising(1), tool_calls("timeout"): rising(1)},
                labels={"job": "holdfast", "tool": "search"},
                summary="The tool search fails.",
                says="20% of its calls failed or ran out of time in the last 5 minutes.",
            )
        ],
        [
            Scene("a tenth fails", {tool_calls("ok"): rising(9), tool_calls("error"): rising(1)}),
            Scene("few calls", {tool_calls("ok"): rising(1), tool_calls("error"): rising(0.8)}),
            Scene("denied, not failed", {tool_calls("ok"): rising(9), tool_calls("denied"): rising(90)}),
            Scene("never called", {tool_calls("ok"): steady(0), tool_calls("error"): steady(0)}),
        ],
    ),
    "HoldfastBreakerOpen": Scenes(
        [
            Scene(
                "in two processes",
                {f'agent_circuit_breaker_state{{job="holdfast", instance="{one}", {OPEN}}}': steady(1) for one in "ab"},
                labels={"job": "holdfast", "resource": "tool:search"},
                summary="tool:search is left alone.",
                says="Its circuit is open in 2 processes: calls are refused, not made.",
            )
        ],
        [
            Scene(
                "half open",
                {
                    f'agent_circuit_breaker_state{{{JOB}, resource="tool:search", state="half_open"}}': steady(1),
                    f'agent_circuit_breaker_state{{{JOB}, resource="tool:search", state="open"}}': steady(0),
                },
            ),
            Scene(
                "open for less than a minute",
                {f'agent_circuit_breaker_state{{{JOB}, resource="tool:search", state="open"}}': "0x29 1"},
            ),
        ],
    ),
    "HoldfastBreakerFlaps": Scenes(
        [
            Scene(
                "six times in an hour",
                {
                    f'agent_circuit_breaker_transitions_total{{{JOB}, resource="tool:search", to="open"}}': rising(
                        0.1, 120
                    ),
                },
                120,
                {"job": "holdfast", "resource": "tool:search"},
                "The circuit of tool:search opens again and again.",
                "6 times in the last hour, in one process.",
            )
        ],
        [
            Scene(
                "five times in an hour, in each of three processes",
                {
                    "agent_circuit_breaker_transitions_total"
                    f'{{job="holdfast", instance="{one}", resource="tool:search", to="open"}}': rising(0.08, 120)
                    for one in "abc"
                },
                120,
            ),
            Scene(
                "it closes",
                {
                    f'agent_circuit_breaker_transitions_total{{{JOB}, resource="tool:search", to="closed"}}': rising(
                        1, 120
                    ),
                },
                120,
            ),
        ],
    ),
    "HoldfastRateLimited": Scenes(
        [
            Scene(
                "twelve a second, of two processes",
                {
                    f'agent_rate_limit_rejections_total{{job="holdfast", instance="{one}", limiter="user"}}': rising(
                        360
                    )
                    for one in "ab"
                },
                labels={"job": "holdfast", "limiter": "user"},
                summary="Much is refused by the limit user.",
                says="12 turns or calls a second are more than it allows.",
            )
        ],
        [Scene("ten a second", {f'agent_rate_limit_rejections_total{{{JOB}, limiter="user"}}': rising(600)})],
    ),
    "HoldfastBulkheadQueueLong": Scenes(
        [
            Scene(
                "eleven wait",
                {f'agent_bulkhead_queue_size{{{JOB}, bulkhead="tool:assistant"}}': steady(11)},
                labels={"job": "holdfast", "bulkhead": "tool:assistant"},
                summary="Calls wait for a place in tool:assistant.",
                says="11 wait in one process.",
            )
        ],
        [
            Scene("ten wait", {f'agent_bulkhead_queue_size{{{JOB}, bulkhead="tool:assistant"}}': steady(10)}),
            Scene(
                "eleven wait in three processes together",
                {
                    f'agent_bulkhead_queue_size{{job="holdfast", instance="{one}", bulkhead="tool:assistant"}}': steady(
                        4
                    )
                    for one in "abc"
                },
            ),
        ],
    ),
    "HoldfastInstanceDown": Scenes(
        [
            Scene(
                "one of two",
                {f"up{{{JOB}}}": steady(0), 'up{job="holdfast", instance="b"}': steady(1)},
                labels={"job": "holdfast", "instance": "a"},
                summary="a cannot be scraped.",
                says="Prometheus has not reached this process for 5 minutes.",
            )
        ],
        [
            Scene("for four minutes", {f"up{{{JOB}}}": "1x25 0x4"}, 29),
            Scene("another job", {'up{job="other", instance="a"}': steady(0)}),
        ],
    ),
    "HoldfastReadyButFailing": Scenes(
        [
            Scene(
                "one of two processes",
                {
                    f"agent_ready{{{JOB}}}": steady(1),
                    'agent_ready{job="holdfast", instance="b"}': steady(1),
                    turns("success"): rising(4),
                    turns("error"): rising(6),
                    turns("success", 'job="holdfast", instance="b"'): rising(10),
                },
                labels={"job": "holdfast", "instance": "a"},
                summary="a says it is ready, and fails.",
                says="60% of its turns failed in the last 5 minutes.",
            )
        ],
        [
            Scene("half", {f"agent_ready{{{JOB}}}": steady(1), turns("success"): rising(5), turns("error"): rising(5)}),
            Scene(
                "not ready",
                {f"agent_ready{{{JOB}}}": steady(0), turns("success"): rising(1), turns("error"): rising(9)},
            ),
            Scene(
                "few", {f"agent_ready{{{JOB}}}": steady(1), turns("success"): rising(0), turns("error"): rising(1.5)}
            ),
        ],
    ),
    "HoldfastHealthCheckFailing": Scenes(
        [
            Scene(
                "the store",
                {f'agent_health_check_state{{{JOB}, check="store", state="unhealthy"}}': steady(1)},
                labels={"job": "holdfast", "instance": "a", "check": "store"},
                summary="store of a is unhealthy.",
                says="The process is not ready while that is so.",
            )
        ],
        [
            Scene("degraded", {f'agent_health_check_state{{{JOB}, check="coord", state="degraded"}}': steady(1)}),
            Scene("for a minute", {f'agent_health_check_state{{{JOB}, check="store", state="unhealthy"}}': "0x28 1x1"}),
        ],
    ),
    "HoldfastStoreUnavailable": Scenes(
        [
            Scene(
                "one of two processes",
                {
                    suspended("store_unavailable"): "0x25 2x5",
                    suspended("store_unavailable", 'job="holdfast", instance="b"'): steady(0),
                },
                labels={"job": "holdfast", "instance": "a"},
                summary="a could not keep turns.",
                says="2 in 10 minutes: the store did not answer. They go on once it does.",
            ),
        ],
        [
            Scene("it was, a while ago", {suspended("store_unavailable"): "0x10 2x20"}),
            Scene("a turn of a process that stops", {suspended("handed_over"): "0x25 2x5"}),
        ],
    ),
    "HoldfastEventLoopLags": Scenes(
        [
            Scene(
                "two in a hundred timers are late",
                buckets("agent_event_loop_lag_seconds", JOB, "0.1", "0.25", 0.02),
                labels={"job": "holdfast", "instance": "a"},
                summary="a comes late to everything.",
                says="Its event loop is up to 175ms late: every turn in it waits that long.",
            )
        ],
        [Scene("one in two hundred is", buckets("agent_event_loop_lag_seconds", JOB, "0.1", "0.25", 0.005))],
    ),
    "HoldfastTelemetryDropped": Scenes(
        [
            Scene(
                "spans, all the time",
                {f'agent_telemetry_dropped_total{{{JOB}, signal="spans", reason="queue_full"}}': rising(1)},
                labels={"job": "holdfast", "signal": "spans", "reason": "queue_full"},
                summary="spans are lost: queue_full.",
                says="10 in the last 10 minutes. What dashboards show is not all there was.",
            )
        ],
        [
            Scene(
                "once",
                {f'agent_telemetry_dropped_total{{{JOB}, signal="spans", reason="queue_full"}}': "0x14 50x15"},
                24,
            ),
            Scene(
                "nothing",
                {f'agent_telemetry_dropped_total{{{JOB}, signal="spans", reason="queue_full"}}': steady(3)},
            ),
        ],
    ),
    "HoldfastTracesLimited": Scenes(
        [
            Scene(
                "some",
                {f'agent_traces_total{{{JOB}, decision="limited"}}': rising(2)},
                labels={"job": "holdfast"},
                summary="More traces fail than are exported.",
                says="20 failing traces in the last 10 minutes were over the limit, and are lost.",
            )
        ],
        [
            Scene("none", {f'agent_traces_total{{{JOB}, decision="limited"}}': steady(4)}),
            Scene("healthy ones are dropped", {f'agent_traces_total{{{JOB}, decision="dropped"}}': rising(90)}),
        ],
    ),
}
