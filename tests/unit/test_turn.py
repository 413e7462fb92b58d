"""One turn: its events, what is stored of it, and what its caller hears, however it ends."""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

import pytest

from holdfast.errors import (
    AgentFailed,
    DeadlineExceeded,
    HoldfastError,
    ModelUnavailable,
    SessionBusy,
    StoreUnavailable,
    TurnCancelled,
    Unprocessable,
)
from holdfast.events import (
    Event,
    ModelFinished,
    ModelStarted,
    TextDelta,
    ToolFinished,
    ToolStarted,
    TurnEnded,
    TurnIds,
    TurnStarted,
    Usage,
)
from holdfast.guard import Guard, GuardSpec, ModelKey, Policies
from holdfast.resilience import Turnstile, remaining_s
from holdfast.store import Conversation, MemoryStore, Past, TurnRecord
from holdfast.testing import loop_clock
from holdfast.testing.virtual_loop import START_WALL_NS
from holdfast.turn import STORE_S, Answer, Ask, Parts, Reply, Turn, turn, unserved_turn

TURN_S = 100.0
Behaviour = Callable[[Turn], Awaitable[str]]


class Scripted:
    """An agent that does what it is told."""

    name = "scripted"

    def __init__(self, behave: Behaviour) -> None:
        self._behave = behave

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    async def answer(self, turn: Turn) -> Reply:
        text = await self._behave(turn)
        return Reply(text, "plain", f"[{turn.message}|{text}]".encode(errors="replace"), 8)


class FaultyStore(MemoryStore):
    """Raises at recall or at record, or takes its time."""

    def __init__(self) -> None:
        super().__init__()
        self.at_recall: BaseException | None = None
        self.at_record: BaseException | None = None
        self.recall_s = self.record_s = 0.0

    async def recall(self, principal: str, session_id: str, window_tokens: int) -> Conversation:
        await asyncio.sleep(self.recall_s)
        if self.at_recall is not None:
            raise self.at_recall
        return await super().recall(principal, session_id, window_tokens)

    async def record(self, turn: TurnRecord) -> None:
        await asyncio.sleep(self.record_s)
        if self.at_record is not None:
            raise self.at_record
        await super().record(turn)


class House:
    """What a turn is made with, and what was seen of it."""

    def __init__(self, *, session_wait_s: float = 1_000) -> None:
        self.store = FaultyStore()
        self.places = Turnstile()
        self.parts = Parts(
            Policies(GuardSpec(turn_s=TURN_S), loop_clock()), self.store, self.places, session_wait_s, 1_000
        )
        self.seen: list[tuple[TurnIds, Event]] = []

    @property
    def events(self) -> list[Event]:
        return [event for _, event in self.seen]

    @property
    def ended(self) -> TurnEnded:
        (ended,) = (event for event in self.events if isinstance(event, TurnEnded))
        return ended

    async def ask(self, behave: Behaviour, message: str = "hello", who: str = "anna", session: str = "talk") -> Answer:
        ask = Ask(
            message=message, principal=who, session_id=session, trace_id="t" * 32, request_id="r", source_ip="::1"
        )
        return await turn(ask, Scripted(behave), self.parts, [lambda ids, event: self.seen.append((ids, event))])

    async def stored(self, who: str = "anna", session: str = "talk") -> list[TurnRecord]:
        return (await self.store.turns(who, session, 100, None) or [])[::-1]


async def echo(current: Turn) -> str:
    await asyncio.sleep(1)
    return f"you said {current.message}"


async def hang(current: Turn) -> str:
    del current
    await asyncio.sleep(10_000)
    return "never"


def raising(error: BaseException) -> Behaviour:
    async def behave(current: Turn) -> str:
        del current
        await asyncio.sleep(1)
        raise error

    return behave


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_a_turn_that_succeeds() -> None:
    house = House()

    async def work(current: Turn) -> str:
        async def call_model(attempt: Any) -> None:
            await asyncio.sleep(1)
            attempt.used(5, 2)

        async def call_tool() -> str:
            return "found"

        await current.guard.model(ModelKey("sim", "small"), None, call_model)
        await current.guard.tool("search", {}, "id", call_tool)
        current.say("hel")
        current.say("")
        current.say("lo")
        return "hello"

    answer = await house.ask(work)
    usage = Usage(model_calls=1, tool_calls=1, input_tokens=5, output_tokens=2)
    (record,) = await house.stored()
    assert answer == Answer(
        session_id="talk",
        turn_id=record.turn_id,
        trace_id="t" * 32,
        reply="hello",
        outcome="success",
        model="small",
        usage=usage,
    )
    assert [type(event) for event in house.events] == [
        TurnStarted,
        ModelStarted,
        ModelFinished,
        ToolStarted,
        ToolFinished,
        TextDelta,
        TextDelta,
        TurnEnded,
    ]
    ids = TurnIds("talk", record.turn_id, "t" * 32, "scripted")
    assert {seen for seen, _ in house.seen} == {ids}
    assert house.events[0] == TurnStarted(**ids._asdict())
    assert house.events[-1] == TurnEnded(**ids._asdict(), outcome="success", reply="hello", usage=usage, duration_s=1)
    assert record == TurnRecord(
        turn_id=f"{record.conversation_id}-1",
        conversation_id=record.conversation_id,
        number=1,
        principal="anna",
        session_id="talk",
        agent="scripted",
        trace_id="t" * 32,
        request_id="r",
        source_ip="::1",
        message="hello",
        reply="hello",
        outcome="success",
        error=None,
        usage=usage,
        format="plain",
        messages=b"[hello|hello]",
        tokens=8,
        started_ns=START_WALL_NS,
        duration_ns=1_000_000_000,
    )
    assert len(house.places) == 0


ENDINGS = [
    (ValueError("secret"), AgentFailed, "error"),
    (ModelUnavailable("down"), ModelUnavailable, "error"),
    (asyncio.CancelledError(), AgentFailed, "error"),
    (SystemExit(3), AgentFailed, "error"),
    (BaseExceptionGroup("both", [asyncio.CancelledError()]), AgentFailed, "error"),
    (TimeoutError(), AgentFailed, "error"),
    (DeadlineExceeded(), DeadlineExceeded, "timeout"),
]


@pytest.mark.parametrize(("raised", "heard", "outcome"), ENDINGS, ids=lambda value: type(value).__name__)
async def test_an_agent_that_raises_ends_its_turn_and_nothing_else(
    raised: BaseException, heard: type[HoldfastError], outcome: str
) -> None:
    """Not even `sys.exit` ends more; and an agent that cancels itself was not cancelled by us."""
    house = House()
    with pytest.raises(heard) as error:
        await house.ask(raising(raised))
    assert error.value is raised or error.value.__cause__ is raised
    assert "secret" not in error.value.detail
    (record,) = await house.stored()
    assert (record.outcome, record.error, record.reply, record.messages) == (outcome, heard.code, "", None)
    assert (house.ended.outcome, house.ended.error, house.ended.reply) == (outcome, heard.code, "")
    assert len(house.places) == 0


async def test_a_turn_that_takes_too_long_is_stopped_and_stored() -> None:
    house = House()
    with pytest.raises(DeadlineExceeded):
        await house.ask(hang)
    assert now() == TURN_S
    (record,) = await house.stored()
    assert (record.outcome, record.error, record.duration_ns) == ("timeout", "deadline_exceeded", TURN_S * 1e9)
    assert (house.ended.outcome, house.ended.error, house.ended.duration_s) == ("timeout", "deadline_exceeded", TURN_S)


async def test_the_wait_for_the_session_is_part_of_the_turns_time() -> None:
    house = House()

    async def slow(current: Turn) -> str:
        await asyncio.sleep(60)
        left = remaining_s(loop_clock())
        return f"{current.message}: {left:g} s left"

    async with asyncio.TaskGroup() as group:
        first = group.create_task(house.ask(slow, "first"))
        second = group.create_task(outcome_of(house.ask(slow, "second")))
    assert first.result().reply == "first: 40 s left"
    assert isinstance(second.result(), DeadlineExceeded)
    assert now() == TURN_S


async def outcome_of(turn: Awaitable[Answer]) -> Answer | BaseException:
    try:
        return await turn
    except BaseException as error:  # noqa: BLE001 - what it came to is what is asked
        return error


async def cancelled_at(house: House, behave: Behaviour, *times: float) -> Answer | BaseException:
    """Run a turn, cancel it at these times, and see what it came to."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(outcome_of(house.ask(behave)))
        for time in times:
            await asyncio.sleep(time - now())
            task.cancel()
    return task.result()


async def test_a_cancelled_turn_is_stored_and_told_as_cancelled() -> None:
    house = House()
    assert isinstance(await cancelled_at(house, hang, 3), TurnCancelled)
    (record,) = await house.stored()
    assert (record.outcome, record.error) == ("cancelled", "turn_cancelled")
    assert (house.ended.outcome, house.ended.error) == ("cancelled", "turn_cancelled")


async def test_a_second_cancellation_does_not_keep_it_from_being_stored() -> None:
    house = House()
    house.store.record_s = 2
    assert isinstance(await cancelled_at(house, hang, 3, 4), TurnCancelled)
    assert [record.outcome for record in await house.stored()] == ["cancelled"]
    assert house.ended.outcome == "cancelled"


async def test_a_turn_cancelled_while_its_answer_is_stored_has_its_answer() -> None:
    """What is stored, what is told and what the caller hears is one and the same."""
    house = House()
    house.store.record_s = 2
    answer = await cancelled_at(house, echo, 2)
    assert isinstance(answer, Answer)
    assert answer.reply == "you said hello"
    assert [record.outcome for record in await house.stored()] == ["success"]
    assert house.ended.outcome == "success"


@pytest.mark.parametrize("waits_for", ["its session", "the store"])
async def test_a_turn_cancelled_before_it_began_leaves_nothing(waits_for: str) -> None:
    house = House()
    house.store.recall_s = 5
    async with asyncio.TaskGroup() as group:
        if waits_for == "its session":
            group.create_task(house.ask(echo, "first"))
            await asyncio.sleep(0)
        task = group.create_task(outcome_of(house.ask(echo)))
        await asyncio.sleep(1)
        task.cancel()
    assert isinstance(task.result(), asyncio.CancelledError)
    before = ["first"] if waits_for == "its session" else []
    assert [record.message for record in await house.stored()] == before
    assert len(house.seen) == 2 * len(before)
    assert len(house.places) == 0


async def everything(current: Turn) -> str:
    """An agent whose turn has a suspension point of every kind."""

    async def call(*_: object) -> str:
        await asyncio.sleep(0)
        return "ok"

    await current.guard.model(ModelKey("sim", "small"), None, call)
    await current.guard.tool("search", {}, "id", call)
    return "done"


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("at", range(1, 24))
async def test_cancelled_anywhere_a_turn_that_began_ends_and_is_stored_as_it_was_told(at: int, times: int) -> None:
    house = House()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(outcome_of(house.ask(everything)))
        for _ in range(at):
            await asyncio.sleep(0)
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
    heard = None if task.cancelled() else task.result()
    stored = await house.stored()
    assert len(house.places) == 0
    assert remaining_s(loop_clock()) is None
    assert at < 23 or isinstance(heard, Answer)  # By then it is over: every point before has been tried.
    if heard is None or isinstance(heard, asyncio.CancelledError):
        assert (stored, house.seen) == ([], [])
        return
    assert isinstance(heard, Answer | TurnCancelled)
    assert [record.outcome for record in stored] == [house.ended.outcome]
    assert house.ended.outcome == ("success" if isinstance(heard, Answer) else "cancelled")
    started = sum(isinstance(event, ModelStarted | ToolStarted) for event in house.events)
    assert started == sum(isinstance(event, ModelFinished | ToolFinished) for event in house.events)


async def test_the_store_fails_before_the_agent_is_asked() -> None:
    house = House()
    house.store.at_recall = StoreUnavailable("down")
    with pytest.raises(StoreUnavailable):
        await house.ask(echo)
    assert house.seen == []
    assert len(house.places) == 0


@pytest.mark.parametrize(
    ("raised", "heard"),
    [
        (StoreUnavailable("down"), StoreUnavailable),
        (OSError("disk"), StoreUnavailable),
        (asyncio.CancelledError(), StoreUnavailable),
        (Unprocessable("odd"), Unprocessable),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_a_turn_that_cannot_be_stored_did_not_succeed(raised: BaseException, heard: type[HoldfastError]) -> None:
    house = House()
    house.store.at_record = raised
    with pytest.raises(heard):
        await house.ask(echo)
    assert (house.ended.outcome, house.ended.error, house.ended.reply) == ("error", heard.code, "")
    assert await house.stored() == []
    assert len(house.places) == 0


async def test_of_two_failures_the_agents_own_is_told() -> None:
    house = House()
    house.store.at_record = StoreUnavailable("down")
    with pytest.raises(ModelUnavailable):
        await house.ask(raising(ModelUnavailable("down")))
    assert house.ended.error == "model_unavailable"


async def test_a_store_that_hangs_is_not_waited_for_for_ever() -> None:
    house = House()
    house.store.recall_s = 10_000
    with pytest.raises(StoreUnavailable):
        await house.ask(echo)
    assert now() == STORE_S

    house = House()
    house.store.record_s = 10_000
    with pytest.raises(StoreUnavailable):
        await house.ask(echo)
    assert now() == STORE_S + 1 + STORE_S
    assert house.ended.error == "store_unavailable"
    assert len(house.places) == 0


async def test_a_session_that_stays_busy_refuses_and_nothing_is_done() -> None:
    house = House(session_wait_s=5)
    async with asyncio.TaskGroup() as group:
        group.create_task(outcome_of(house.ask(hang)))
        await asyncio.sleep(0)
        with pytest.raises(SessionBusy) as busy:
            await house.ask(echo)
        assert now() == 5
        assert busy.value.retry_after_s == 1
        assert len(house.seen) == 1


async def test_the_wait_for_the_session_is_no_longer_than_the_turn_itself() -> None:
    house = House(session_wait_s=3_000)
    house.store.record_s = 9

    async with asyncio.TaskGroup() as group:
        group.create_task(outcome_of(house.ask(hang)))
        await asyncio.sleep(0)
        with pytest.raises(SessionBusy):
            await house.ask(echo)
        assert now() == TURN_S


async def test_two_messages_of_one_session_run_one_after_the_other() -> None:
    house = House()
    running: list[str] = []

    async def alone(current: Turn) -> str:
        running.append(current.message)
        assert len(running) == 1
        await asyncio.sleep(1)
        running.remove(current.message)
        return f"{len(current.past)} before {current.message}"

    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(house.ask(alone, f"m{n}")) for n in range(4)]
    assert [task.result().reply for task in asked] == [f"{n} before m{n}" for n in range(4)]
    assert [record.number for record in await house.stored()] == [1, 2, 3, 4]
    assert now() == 4


async def test_the_second_message_is_given_what_came_before() -> None:
    house = House()
    given: list[Any] = []

    async def remember(current: Turn) -> str:
        given.append(tuple(current.past))
        return f"reply to {current.message}"

    await house.ask(remember, "one")
    with pytest.raises(AgentFailed):
        await house.ask(raising(ValueError()), "lost")
    await house.ask(remember, "two")
    assert given == [
        (),
        (Past(message="one", reply="reply to one", format="plain", messages=b"[one|reply to one]"),),
    ]
    assert [record.number for record in await house.stored()] == [1, 2, 3]


async def test_two_principals_share_neither_past_nor_place() -> None:
    house = House()
    past: dict[str, int] = {}

    async def look(current: Turn) -> str:
        await asyncio.sleep(1)
        past[current.message] = len(current.past)
        return current.principal

    await house.ask(look, "first")
    async with asyncio.TaskGroup() as group:
        group.create_task(house.ask(look, "anna's second"))
        group.create_task(house.ask(look, "ben's first", who="ben"))
    assert past == {"first": 0, "anna's second": 1, "ben's first": 0}
    assert now() == 2
    assert [record.message for record in await house.stored("ben")] == ["ben's first"]


async def test_a_message_that_is_not_unicode_is_refused_before_anything_is_done() -> None:
    house = House()
    with pytest.raises(Unprocessable):
        await house.ask(echo, "half a pair \ud83d")
    assert (house.seen, await house.stored()) == ([], [])


async def test_a_reply_that_is_not_unicode_is_the_agents_failure() -> None:
    house = House()

    async def half(current: Turn) -> str:
        return f"{current.message} \ud83d"

    with pytest.raises(AgentFailed):
        await house.ask(half)
    assert [(r.outcome, r.error, r.reply) for r in await house.stored()] == [("error", "agent_failed", "")]


async def test_somebody_who_ends_the_process_ends_it() -> None:
    """A keyboard interrupt is not the agent's failure."""
    with pytest.raises(KeyboardInterrupt):
        await House().ask(interrupted)


async def interrupted(current: Turn) -> str:
    raise KeyboardInterrupt(current.message)


IDS = TurnIds("", "turn", "trace", "mine")


async def unserved(seen: list[Event], block: Callable[[Guard], Awaitable[object]]) -> None:
    async with unserved_turn(
        IDS, Policies(GuardSpec(turn_s=TURN_S), loop_clock()), [lambda _, event: seen.append(event)]
    ) as g:
        await block(g)


async def test_an_unserved_turn_is_observed_and_guarded() -> None:
    seen: list[Event] = []

    async def block(guard: Guard) -> None:
        async def call(attempt: Any) -> None:
            await asyncio.sleep(1)
            attempt.used(3, 4)

        await guard.model(ModelKey("sim", "small"), None, call)
        assert remaining_s(loop_clock()) == TURN_S - 1

    await unserved(seen, block)
    assert [type(event) for event in seen] == [TurnStarted, ModelStarted, ModelFinished, TurnEnded]
    assert seen[-1] == TurnEnded(
        **IDS._asdict(),
        outcome="success",
        reply="",
        usage=Usage(model_calls=1, input_tokens=3, output_tokens=4),
        duration_s=1,
    )
    assert remaining_s(loop_clock()) is None


@pytest.mark.parametrize(
    ("raised", "outcome", "code"),
    [
        (ValueError(), "error", "agent_failed"),
        (ModelUnavailable(), "error", "model_unavailable"),
        (SystemExit(), "error", "agent_failed"),
        (asyncio.CancelledError(), "error", "agent_failed"),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_an_unserved_turn_that_raises_is_told_and_raises_what_it_raised(
    raised: BaseException, outcome: str, code: str
) -> None:
    seen: list[Event] = []

    async def block(_guard: Guard) -> None:
        raise raised

    with pytest.raises(type(raised)) as heard:
        await unserved(seen, block)
    assert heard.value is raised
    assert isinstance(seen[-1], TurnEnded)
    assert (seen[-1].outcome, seen[-1].error) == (outcome, code)


async def test_an_unserved_turn_stops_at_its_deadline() -> None:
    seen: list[Event] = []
    with pytest.raises(DeadlineExceeded):
        await unserved(seen, lambda _: asyncio.sleep(10_000))
    assert isinstance(seen[-1], TurnEnded)
    assert (now(), seen[-1].outcome, seen[-1].error) == (TURN_S, "timeout", "deadline_exceeded")


async def test_an_unserved_turn_cancelled_from_outside_is_cancelled() -> None:
    seen: list[Event] = []
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3):
            await unserved(seen, lambda _: asyncio.sleep(10_000))
    assert isinstance(seen[-1], TurnEnded)
    assert (seen[-1].outcome, seen[-1].error) == ("cancelled", "turn_cancelled")
