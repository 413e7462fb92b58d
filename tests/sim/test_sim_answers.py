"""Answers as the real SDKs read them: text, tool calls, usage and endings, in every format, whole and streamed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anthropic
import openai
import pytest

from holdfast.sim import Reply, Request

if TYPE_CHECKING:
    from tests.sim.conftest import Http, Session

pytestmark = pytest.mark.sockets

LONG = "The quick brown fox jumps over the lazy dog, again and again: äöü 🦊."
PARIS = {"tool": "weather", "args": {"city": "Paris"}}
ROME = {"tool": "weather", "args": {"city": "Rome"}}
TOOL_CALLS = {"tool_use", "tool_calls", "completed"}


async def test_text_arrives_as_it_was_scripted(session: Session) -> None:
    async with session([{"say": LONG}]) as (_, client):
        heard = await client.ask()
    assert heard.text == LONG
    assert heard.calls == []
    assert heard.finish in {"end_turn", "stop", "completed"}


async def test_a_tool_call_arrives_with_its_arguments(session: Session) -> None:
    async with session([{"call": [PARIS]}]) as (_, client):
        heard = await client.ask()
    assert heard.calls == [("weather", {"city": "Paris"})]
    assert heard.text == ""
    assert heard.finish in TOOL_CALLS


async def test_text_and_several_tool_calls_arrive_in_one_answer_in_order(session: Session) -> None:
    async with session([{"say": "Looking.", "call": [PARIS, ROME, {"tool": "weather"}]}]) as (_, client):
        heard = await client.ask()
    assert heard.text == "Looking."
    assert heard.calls == [("weather", {"city": "Paris"}), ("weather", {"city": "Rome"}), ("weather", {})]
    assert heard.finish in TOOL_CALLS


async def test_a_token_is_four_characters(session: Session) -> None:
    async with session([{"say": "x" * 41}]) as (sim, client):
        heard = await client.ask("y" * 41, tools=[])
    assert (heard.input_tokens, heard.output_tokens) == (11, 11)
    assert sim.requests[0].deltas == (11 if client.stream else 0)


async def test_usage_can_be_made_up(session: Session) -> None:
    async with session([{"say": "hi", "usage": {"input_tokens": 5000, "output_tokens": 700}}]) as (_, client):
        heard = await client.ask()
    assert (heard.input_tokens, heard.output_tokens) == (5000, 700)


async def test_text_longer_than_the_request_allows_is_cut(session: Session) -> None:
    async with session([{"say": "x" * 100}]) as (_, client):
        heard = await client.ask(max_tokens=20)
    assert heard.text == "x" * 80
    assert heard.finish in {"max_tokens", "length", "max_output_tokens"}


@pytest.mark.parametrize(
    ("finish", "said"),
    [
        ("length", {"max_tokens", "length", "max_output_tokens"}),
        ("content_filter", {"refusal", "content_filter"}),
        ("refusal", {"refusal", "stop", "completed"}),
    ],
)
async def test_an_answer_ends_in_the_words_of_its_provider(session: Session, finish: str, said: set[str]) -> None:
    async with session([{"say": "I will not.", "finish": finish}]) as (_, client):
        heard = await client.ask()
    assert heard.finish in said
    assert (heard.text or heard.refusal) == "I will not."


async def test_an_empty_answer_is_possible(session: Session) -> None:
    async with session([{"finish": "stop"}]) as (_, client):
        heard = await client.ask()
    assert (heard.text, heard.calls, heard.output_tokens) == ("", [], 1)


async def test_without_a_script_the_demo_model_answers(session: Session) -> None:
    async with session() as (sim, client):
        heard = await client.ask("hello")
    assert heard.text
    assert sim.requests[0].answered_by == "demo"


async def test_cached_tokens_are_told_as_each_provider_tells_them(whole: Session) -> None:
    async with whole([{"say": "hi", "usage": {"input_tokens": 100, "cached_tokens": 60}}]) as (_, client):
        if client.format == "anthropic":
            message = await client.anthropic.messages.create(
                model="m", max_tokens=9, messages=[{"role": "user", "content": "x"}]
            )
            assert (message.usage.input_tokens, message.usage.cache_read_input_tokens) == (40, 60)
        elif client.format == "openai-chat":
            completion = await client.openai.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "x"}]
            )
            assert completion.usage is not None
            assert completion.usage.prompt_tokens_details is not None
            assert completion.usage.prompt_tokens == 100
            assert completion.usage.prompt_tokens_details.cached_tokens == 60
        else:
            response = await client.openai.responses.create(model="m", input="x")
            assert response.usage is not None
            assert (response.usage.input_tokens, response.usage.input_tokens_details.cached_tokens) == (100, 60)


async def test_a_stream_has_the_events_of_the_real_one(streamed: Session, http: Http) -> None:
    bodies: dict[str, dict[str, Any]] = {
        "/v1/messages": {"max_tokens": 9, "messages": [{"role": "user", "content": "x"}]},
        "/v1/chat/completions": {
            "messages": [{"role": "user", "content": "x"}],
            "stream_options": {"include_usage": True},
        },
        "/v1/responses": {"input": "x"},
    }
    async with streamed([{"say": "Hello", "call": [{"tool": "t", "args": {}}]}]) as (sim, client), http(sim) as raw:
        path = dict(zip(("anthropic", "openai-chat", "openai-responses"), bodies, strict=True))[client.format]
        answer = await raw.post(path, json={"model": "m", "stream": True, **bodies[path]})
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [line.removeprefix("event: ") for line in answer.text.split("\n") if line.startswith("event: ")]
    if client.format == "anthropic":
        assert answer.headers["request-id"] == "req_sim_000001"
        block = ["content_block_start", "content_block_delta", "content_block_stop"]
        text = [block[0], "ping", block[1], block[1], block[2]]
        assert events == ["message_start", *text, *block, "message_delta", "message_stop"]
    elif client.format == "openai-responses":
        assert answer.headers["x-request-id"] == "req_sim_000001"
        assert events == [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.output_item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "response.output_item.done",
            "response.completed",
        ]
        assert [f'"sequence_number":{n},' in answer.text for n in range(14)] == [True] * 14
    else:
        assert events == []
        assert answer.text.endswith("data: [DONE]\n\n")
        assert answer.text.count('"object":"chat.completion.chunk"') == 1 + 2 + 2 + 1 + 1
        assert answer.text.count('"choices":[]') == 1


async def test_a_chat_stream_has_no_usage_unless_it_is_asked_for(chat: Session, http: Http) -> None:
    async with chat() as (sim, _), http(sim) as raw:
        body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "x"}]}
        answer = await raw.post("/v1/chat/completions", json=body)
    assert '"usage"' not in answer.text


async def test_a_script_sees_tool_results_by_the_name_of_their_tool(chat: Session) -> None:
    seen: list[Request] = []

    def brain(request: Request, rng: object) -> Reply:
        seen.append(request)
        return Reply(say="fine")

    async with chat(brain) as (_, client):
        await client.anthropic.messages.create(
            model="m",
            max_tokens=9,
            system="Be brief.",
            messages=[
                {"role": "user", "content": "weather?"},
                {
                    "role": "assistant",
                    "content": [{"type": "tool_use", "id": "a", "name": "weather", "input": {"city": "Rome"}}],
                },
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "rain"}]},
            ],
        )
        call: Any = {"id": "a", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}}
        await client.openai.chat.completions.create(
            model="m",
            messages=[
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": "weather?"},
                {"role": "assistant", "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "a", "content": "rain"},
            ],
        )
        await client.openai.responses.create(
            model="m",
            instructions="Be brief.",
            input=[
                {"role": "user", "content": "weather?"},
                {"type": "function_call", "call_id": "a", "name": "weather", "arguments": '{"city":"Rome"}'},
                {"type": "function_call_output", "call_id": "a", "output": "rain"},
            ],
        )
    first, *others = [request.messages for request in seen]
    assert [(m.role, m.text, m.tool) for m in first] == [
        ("system", "Be brief.", ""),
        ("user", "weather?", ""),
        ("assistant", "", ""),
        ("tool", "rain", "weather"),
    ]
    assert first[2].calls[0].args == {"city": "Rome"}
    assert others == [first, first]
    assert {request.last_tool for request in seen} == {"weather"}
    assert {request.user_text for request in seen} == {"weather?"}


async def test_a_tool_result_that_nobody_asked_for_is_refused_as_the_providers_do(chat: Session) -> None:
    async with chat() as (sim, client):
        with pytest.raises(anthropic.BadRequestError, match="unexpected `tool_use_id`"):
            await client.anthropic.messages.create(
                model="m",
                max_tokens=9,
                messages=[{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "x"}]}],
            )
        with pytest.raises(openai.BadRequestError, match="must be a response to"):
            await client.openai.chat.completions.create(
                model="m", messages=[{"role": "tool", "tool_call_id": "a", "content": "x"}]
            )
        with pytest.raises(openai.BadRequestError, match="No tool call found"):
            await client.openai.responses.create(
                model="m", input=[{"type": "function_call_output", "call_id": "a", "output": "x"}]
            )
    assert [record.status for record in sim.requests] == [400, 400, 400]


async def test_a_tool_call_without_its_result_is_refused_as_the_providers_do(chat: Session) -> None:
    async with chat() as (_, client):
        with pytest.raises(anthropic.BadRequestError, match="without `tool_result` blocks"):
            await client.anthropic.messages.create(
                model="m",
                max_tokens=9,
                messages=[
                    {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "t", "input": {}}]},
                    {"role": "user", "content": "and?"},
                ],
            )
        call: Any = {"id": "a", "type": "function", "function": {"name": "t", "arguments": "{}"}}
        with pytest.raises(openai.BadRequestError, match="did not have response messages: a"):
            await client.openai.chat.completions.create(
                model="m", messages=[{"role": "assistant", "tool_calls": [call]}]
            )
        with pytest.raises(openai.BadRequestError, match="No tool output found"):
            await client.openai.responses.create(
                model="m", input=[{"type": "function_call", "call_id": "a", "name": "t", "arguments": "{}"}]
            )


async def test_what_is_required_is_required(chat: Session, http: Http) -> None:
    async with chat() as (sim, _), http(sim) as raw:
        said = [
            (await raw.post(path, json=body)).json()["error"]["message"]
            for path, body in [
                ("/v1/messages", {"model": "m", "messages": []}),
                ("/v1/messages", {"max_tokens": 1, "messages": []}),
                ("/v1/chat/completions", {"model": "m"}),
                ("/v1/chat/completions", {"model": "m", "messages": [], "max_tokens": 0}),
                ("/v1/responses", {"model": "m", "input": "x", "previous_response_id": "resp_1"}),
            ]
        ]
    assert said == [
        "max_tokens: Field required",
        "model: Field required",
        "Missing required parameter: 'messages'.",
        "Invalid 'messages': empty array. Expected an array with minimum length 1.",
        "Previous response with id 'resp_1' not found.",
    ]


async def test_models_are_listed_in_both_shapes_and_tokens_are_counted(chat: Session) -> None:
    async with chat() as (_, client):
        listed = [model.id async for model in client.anthropic.models.list()]
        assert listed == [model.id async for model in client.openai.models.list()]
        counted = await client.anthropic.messages.count_tokens(
            model="m", messages=[{"role": "user", "content": "y" * 41}], system="y" * 41
        )
    assert "sim" in listed
    assert counted.input_tokens == 21
