"""One way to ask, through the real SDKs: so that a test runs for every format, streamed and not."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from holdfast.sim import Simulator

TOOL = "weather"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
KEY = "sk-secret-key"


@dataclass
class Heard:
    """What the SDK handed over, whatever the format."""

    text: str = ""
    calls: list[tuple[str, Any]] = field(default_factory=list)
    finish: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    refusal: str = ""


class Client:
    """One format's SDK, streamed or not."""

    def __init__(self, sim: Simulator, format_name: str, *, stream: bool) -> None:
        self.format = format_name
        self.stream = stream
        self.partial = Heard()
        # One client without certificates for both: loading them takes most of a test's time, and nothing here is TLS.
        self._http = httpx2.AsyncClient(verify=False)
        self.anthropic = AsyncAnthropic(base_url=sim.url, api_key=KEY, max_retries=0, http_client=self._http)
        self.openai = AsyncOpenAI(base_url=f"{sim.url}/v1", api_key=KEY, max_retries=0, http_client=self._http)

    async def close(self) -> None:
        await self._http.aclose()

    async def ask(
        self, text: str = "hello", *, model: str = "some-model", patience_s: float = 30, **more: Any
    ) -> Heard:
        """One question; what was heard before an error is left in ``partial``."""
        self.partial = Heard()
        asked = {"anthropic": self._messages, "openai-chat": self._chat, "openai-responses": self._responses}
        return await asked[self.format](text, model, patience_s, more)

    async def _messages(self, text: str, model: str, patience_s: float, more: dict[str, Any]) -> Heard:
        more = {"max_tokens": 1000, **more}
        tools: Any = [{"name": TOOL, "description": "The weather.", "input_schema": SCHEMA}]
        messages: Any = [{"role": "user", "content": text}]
        asked: dict[str, Any] = {
            "model": model,
            "messages": messages,
            "tools": tools,
            "timeout": _limits(patience_s),
            **more,
        }
        if not self.stream:
            return self._from_message(await self.anthropic.messages.create(**asked))
        async with self.anthropic.messages.stream(**asked) as stream:
            async for event in stream:
                if event.type == "text":
                    self.partial.text += event.text
            return self._from_message(await stream.get_final_message())

    def _from_message(self, message: Any) -> Heard:
        return Heard(
            text="".join(block.text for block in message.content if block.type == "text"),
            calls=[(block.name, block.input) for block in message.content if block.type == "tool_use"],
            finish=message.stop_reason,
            input_tokens=message.usage.input_tokens,
            output_tokens=message.usage.output_tokens,
        )

    async def _chat(self, text: str, model: str, patience_s: float, more: dict[str, Any]) -> Heard:
        tools: Any = [{"type": "function", "function": {"name": TOOL, "parameters": SCHEMA}}]
        messages: Any = [{"role": "user", "content": text}]
        asked: dict[str, Any] = {
            "model": model,
            "messages": messages,
            "tools": tools,
            "timeout": _limits(patience_s),
            **more,
        }
        if self.stream:
            return await self._from_chunks(asked)
        completion: Any = await self.openai.chat.completions.create(**asked)
        choice = completion.choices[0]
        return Heard(
            text=choice.message.content or "",
            calls=[(c.function.name, _parsed(c.function.arguments)) for c in choice.message.tool_calls or []],
            finish=choice.finish_reason,
            input_tokens=completion.usage.prompt_tokens,
            output_tokens=completion.usage.completion_tokens,
            refusal=choice.message.refusal or "",
        )

    async def _from_chunks(self, asked: dict[str, Any]) -> Heard:
        heard, calls = self.partial, list[list[str]]()
        stream: Any = await self.openai.chat.completions.create(
            **asked, stream=True, stream_options={"include_usage": True}
        )
        async for chunk in stream:
            if chunk.usage:
                heard.input_tokens, heard.output_tokens = chunk.usage.prompt_tokens, chunk.usage.completion_tokens
            for choice in chunk.choices:
                heard.text += choice.delta.content or ""
                heard.refusal += choice.delta.refusal or ""
                heard.finish = choice.finish_reason or heard.finish
                for call in choice.delta.tool_calls or []:
                    if call.id:
                        calls.append([call.function.name, ""])
                    calls[call.index][1] += call.function.arguments
        heard.calls = [(name, _parsed(arguments)) for name, arguments in calls]
        return heard

    async def _responses(self, text: str, model: str, patience_s: float, more: dict[str, Any]) -> Heard:
        more = {"max_output_tokens" if key == "max_tokens" else key: value for key, value in more.items()}
        tools: Any = [{"type": "function", "name": TOOL, "parameters": SCHEMA, "strict": False}]
        asked: dict[str, Any] = {
            "model": model,
            "input": text,
            "tools": tools,
            "timeout": _limits(patience_s),
            **more,
        }
        if not self.stream:
            return self._from_response(await self.openai.responses.create(**asked))
        final: Any = None
        stream: Any = await self.openai.responses.create(**asked, stream=True)
        async for event in stream:
            if event.type == "response.output_text.delta":
                self.partial.text += event.delta
            if event.type in {"response.completed", "response.incomplete"}:
                final = event.response
            if event.type == "error":
                self.partial.finish = f"error: {event.code}"
        return self._from_response(final) if final else self.partial

    def _from_response(self, response: Any) -> Heard:
        refusals = [p.refusal for i in response.output if i.type == "message" for p in i.content if p.type == "refusal"]
        return Heard(
            text=response.output_text,
            calls=[(i.name, _parsed(i.arguments)) for i in response.output if i.type == "function_call"],
            finish=response.incomplete_details.reason if response.incomplete_details else response.status,
            input_tokens=response.usage.input_tokens,
            output_tokens=response.usage.output_tokens,
            refusal="".join(refusals),
        )


def _limits(patience_s: float) -> httpx2.Timeout:
    """Only the wait for an answer is short: a slow machine must not make a test of it."""
    return httpx2.Timeout(30, read=patience_s)


def _parsed(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


Session = Callable[..., AbstractAsyncContextManager[tuple[Simulator, Client]]]


def opened(format_name: str, *, stream: bool) -> Session:
    @asynccontextmanager
    async def session(script: Any = None, **options: Any) -> AsyncIterator[tuple[Simulator, Client]]:
        async with Simulator(script, **options) as sim:
            client = Client(sim, format_name, stream=stream)
            try:
                yield sim, client
            finally:
                await client.close()

    return session


FORMATS = ("anthropic", "openai-chat", "openai-responses")


@pytest.fixture(params=[f"{name}{how}" for name in FORMATS for how in ("", " streamed")])
def session(request: pytest.FixtureRequest) -> Session:
    """A simulator and a client for it: every format, whole and streamed."""
    name, _, how = request.param.partition(" ")
    return opened(name, stream=bool(how))


@pytest.fixture(params=FORMATS)
def streamed(request: pytest.FixtureRequest) -> Session:
    """The same, streamed only."""
    return opened(request.param, stream=True)


@pytest.fixture(params=FORMATS)
def whole(request: pytest.FixtureRequest) -> Session:
    """The same, not streamed."""
    return opened(request.param, stream=False)


@pytest.fixture
def chat() -> Session:
    """One format is enough where the format does not matter."""
    return opened("openai-chat", stream=False)


@asynccontextmanager
async def http_client(sim: Simulator) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=sim.url, timeout=30, verify=False) as client:
        yield client


@pytest.fixture
def http() -> Callable[[Simulator], AbstractAsyncContextManager[httpx2.AsyncClient]]:
    """A plain HTTP client for a simulator."""
    return http_client


Http = Callable[[Simulator], AbstractAsyncContextManager[httpx2.AsyncClient]]
Until = Callable[[Callable[[], bool]], Awaitable[None]]


@pytest.fixture
def until() -> Until:
    """Wait until something has become true, which the test's time limit bounds."""

    async def wait(condition: Callable[[], bool]) -> None:
        while not condition():  # noqa: ASYNC110 - the simulator has no event for everything a test may look at
            await asyncio.sleep(0.001)

    return wait
