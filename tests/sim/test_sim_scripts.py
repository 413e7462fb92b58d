"""Scripts: which rule answers, where scripts come from, and what is said about a bad one."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anthropic
import openai
import pytest

from holdfast.errors import Misconfigured
from holdfast.sim import Call, Message, Overloaded, Reply, Request, Script, Simulator, When
from holdfast.sim.loading import load
from holdfast.sim.record import credential_of

if TYPE_CHECKING:
    from tests.sim.conftest import Session

KEY = "sk-secret-key"


def asked(text: str = "What is the weather in Rome?", **fields: Any) -> Request:
    given: dict[str, Any] = {"format": "anthropic", "model": "claude-x", "messages": (Message(role="user", text=text),)}
    return Request(**{**given, **fields})


AFTER_TOOL = (Message(role="user", text="hi"), Message(role="tool", text="rain", tool="weather"))


@pytest.mark.parametrize(
    ("when", "request_", "matches"),
    [
        ({}, asked(), True),
        ({"text_contains": "WEATHER"}, asked(), True),
        ({"text_contains": "snow"}, asked(), False),
        ({"text_matches": r"in \w+\?$"}, asked(), True),
        ({"text_matches": r"^in"}, asked(), False),
        ({"model": "claude-*"}, asked(), True),
        ({"model": "claude"}, asked(), False),
        ({"tool": "weather"}, asked(messages=AFTER_TOOL), True),
        ({"tool": "*"}, asked(messages=AFTER_TOOL), True),
        ({"tool": "*"}, asked(), False),
        ({"format": "anthropic"}, asked(), True),
        ({"format": "openai-chat"}, asked(), False),
        ({"header": {"X-Tenant": "a"}}, asked(headers={"x-tenant": "abc"}), True),
        ({"header": {"X-Tenant": ""}}, asked(headers={"x-tenant": "abc"}), True),
        ({"header": {"X-Tenant": ""}}, asked(), False),
        ({"credential": KEY}, asked(credential=credential_of({"x-api-key": KEY})), True),
        ({"credential": credential_of({"authorization": f"Bearer {KEY}"})}, asked(credential="sha256:d1d1d1d1"), False),
        ({"credential": ""}, asked(), True),
        ({"text_contains": "weather", "model": "gpt-*"}, asked(), False),
    ],
)
def test_all_conditions_of_a_rule_must_hold(when: dict[str, Any], request_: Request, matches: object) -> None:
    assert When(**when).matches(request_) is matches


@pytest.mark.sockets
async def test_rules_are_tried_in_order_and_the_demo_model_takes_the_rest(chat: Session) -> None:
    rules = [
        {"name": "first", "when": {"text_contains": "a"}, "say": "1"},
        {"when": {"text_contains": "b"}, "say": "2"},
    ]
    async with chat(rules) as (sim, client):
        assert [(await client.ask(text)).text for text in ("ab", "b")] == ["1", "2"]
        await client.ask("hello")
    assert [record.answered_by for record in sim.requests] == ["first", "rules[1]", "demo"]


@pytest.mark.sockets
async def test_a_rule_may_begin_late_and_end_early(chat: Session) -> None:
    async with chat([{"say": "now", "after": 1, "times": 2}, {"say": "else"}]) as (_, client):
        assert [(await client.ask()).text for _ in range(5)] == ["else", "now", "now", "else", "else"]


@pytest.mark.sockets
async def test_a_share_is_the_same_for_the_same_seed(chat: Session) -> None:
    async def run(seed: int) -> str:
        async with chat([{"say": "x", "share": 0.3}, {"say": "."}], seed=seed) as (_, client):
            return "".join([(await client.ask()).text for _ in range(40)])

    first = await run(1)
    assert first == await run(1)
    assert first != await run(2)
    assert 4 <= first.count("x") <= 20


@pytest.mark.sockets
async def test_a_python_function_answers_or_leaves_it_to_the_demo_model(session: Session) -> None:
    async def brain(request: Request, rng: random.Random) -> Reply | None:
        if "tool" in request.user_text:
            return Reply(say=f"{rng.randint(0, 9)}", call=(Call(tool=request.tools[0], args={"city": "Rome"}),))
        return None

    async with session(brain) as (sim, client):
        heard = await client.ask("tool please")
        assert heard.calls == [("weather", {"city": "Rome"})]
        assert heard.text.isdigit()
        await client.ask("hello")
    assert [record.answered_by.rpartition(".")[2] for record in sim.requests] == ["brain", "demo"]


@pytest.mark.sockets
@pytest.mark.parametrize("wrong", [lambda _request, _rng: 1 / 0, lambda _request, _rng: "text"])
async def test_a_python_function_that_fails_is_a_500_and_the_record_says_why(session: Session, wrong: Any) -> None:
    async with session(wrong) as (sim, client):
        with pytest.raises((anthropic.InternalServerError, openai.InternalServerError)):
            await client.ask()
    assert any(said in sim.requests[0].error for said in ("ZeroDivisionError", "must return a Reply or None, not str"))


def test_a_script_is_read_from_yaml(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text("""
first_token: p50=0.3 p95=1.2
rules:
  - when: {text_contains: weather, tool: lookup}
    call:
      - {tool: weather, args: {city: Paris}}
    fault: overloaded
    per_token: 0.1..0.2
  - say: Hello.
    fault: {kind: stall, after_deltas: 2, seconds: 5}
""")
    script, name = load(file)
    assert isinstance(script, Script)
    assert name == str(file)
    assert script.rules[0].fault == Overloaded()
    assert script.as_data() == {
        "first_token": "p50=0.3 p95=1.2",
        "rules": [
            {
                "when": {"text_contains": "weather", "tool": "lookup"},
                "call": [{"tool": "weather", "args": {"city": "Paris"}}],
                "fault": {"kind": "overloaded"},
                "per_token": "0.1..0.2",
            },
            {"say": "Hello.", "fault": {"kind": "stall", "after_deltas": 2, "seconds": 5.0}},
        ],
    }


def test_a_script_is_read_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "my_sim_script.py"
    file.write_text("""
from holdfast.sim import Reply, Rule
def script(request, rng):
    return Reply(say="one")
rules = [{"say": "two"}, Rule(say="three")]
""")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert callable(load(str(file))[0])
    for source in (f"{file}:rules", "my_sim_script:rules"):
        script, _ = load(source)
        assert isinstance(script, Script)
        assert [rule.say for rule in script.rules] == ["two", "three"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- {txt_contains: x, say: y}", "rules[0]: there is no key 'txt_contains' here; there are say, call, usage"),
        ("- {sya: y}", "rules[0]: there is no key 'sya' here; did you mean 'say'?"),
        (
            "- {say: y}\n- {say: x, when: {txt_contains: y}}",
            "rules[1].when: there is no key 'txt_contains' here; did you mean 'text_contains'?",
        ),
        ("- {fault: overlaoded}", "rules[0].fault.kind: there is no fault 'overlaoded'; did you mean 'overloaded'?"),
        ("- {fault: {kind: xyz}}", "rules[0].fault.kind: there is no fault 'xyz'; there are rate_limited, quota,"),
        (
            "- {fault: {kind: rate_limited, retry_after: 2}}",
            "rules[0].fault: there is no key 'retry_after' here; did you mean 'retry_after_s'?",
        ),
        ("- {fault: {kind: slow_first_token}}", "rules[0].fault: Object missing required field `seconds`"),
        ("- {say: y, times: two}", "rules[0].times: Expected `int | null`, got `str`"),
        ("- {say: yes}", "rules[0].say: Expected `str`, got `bool`"),
        ("- {say: y, share: 2}", "rules[0].share: Expected `float` <= 1.0"),
        ("- {say: y, finish: done}", "rules[0].finish: Invalid enum value 'done'"),
        ("- {say: y, first_token: soon}", "rules[0].first_token: a latency is seconds >= 0 (0.3), a range"),
        ("- {say: y, per_token: 0.5..0.1}", "rules[0].per_token: a latency is"),
        ("- {say: y, usage: {input_tokens: -1}}", "rules[0].usage: input_tokens must be >= 0, got -1"),
        ("- {call: [{tol: x}]}", "rules[0].call[0]: there is no key 'tol' here; did you mean 'tool'?"),
        ("- {when: {text_matches: '('}, say: y}", "rules[0].when: text_matches is no regular expression: missing )"),
        ("- {name: x}", "rules[0]: a rule needs say, call, finish, usage or fault"),
        ("- 3", "rules[0]: Expected `object`, got `int`"),
        ("rulez: []", "there is no key 'rulez' here; did you mean 'rules'?"),
        ("", "Expected `object`, got `null`"),
        ("- {say: 'y}", "line 1: not YAML: found unexpected end of stream"),
    ],
)
def test_a_bad_script_is_told_in_one_line_with_file_place_and_nearest_key(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(text)
    with pytest.raises(Misconfigured) as raised:
        Simulator(file)
    assert raised.value.detail.startswith(f"{file}: {said}")
    assert "\n" not in raised.value.detail


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("nowhere.yaml", "nowhere.yaml: cannot be read: No such file or directory"),
        (".", ".: cannot be read: Is a directory"),
        ("nowhere.py", "nowhere.py: cannot be read: there is no such file"),
        ("no_such_module:brain", "no_such_module:brain: cannot import no_such_module: No module named"),
        ("holdfast.sim:Replly", "holdfast.sim:Replly: there is no 'Replly'; did you mean 'Reply'?"),
        ("holdfast.clock:NS", "holdfast.clock:NS: Expected `object`, got `int`"),
    ],
)
def test_a_script_that_is_not_there_is_told_in_one_line(source: str, said: str) -> None:
    with pytest.raises(Misconfigured) as raised:
        Simulator(source)
    assert raised.value.detail.startswith(said)


def test_python_that_does_not_run_is_told_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "bad.py"
    file.write_text("1 / 0\n")
    with pytest.raises(Misconfigured, match=r"bad\.py: ZeroDivisionError: division by zero"):
        Simulator(str(file))


@pytest.mark.parametrize("option", ["first_token", "per_token"])
def test_a_bad_latency_option_is_told_by_its_name(option: str) -> None:
    with pytest.raises(Misconfigured, match=f"^sim {option}: a latency is seconds"):
        Simulator(**{option: "slow"})  # type: ignore[arg-type]  # the name is a parameter
