"""One turn: its events, what is stored of it, and what its caller hears, however it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.errors import (
    AgentFailed,
    DeadlineExceeded,
    HandedOver,
    HoldfastError,
    KeyReused,
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
    TurnSuspended,
    Usage,
)
from holdfast.guard import Guard, GuardSpec, ModelKey, Policies
from holdfast.journal import Journal, Story
from holdfast.journal.journal import KEEP_S
from holdfast.replica import Answer, Keeper, usage_view
from holdfast.resilience import remaining_s
from holdfast.store import Claim, Ending, NewTurn, Past, TurnRecord
from holdfast.testing import loop_clock
from holdfast.testing.virtual_loop import START_WALL_NS
from holdfast.turn import STORE_S, Turn, turn, unserved_turn

if TYPE_CHECKING:
    from tests.unit.house import TURN_S, WIDE, Behaviour, House, Scripted, outcome_of
else:
    from house import TURN_S, WIDE, House, Scripted, outcome_of  # pytest puts a test's folder on the path


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
        usage=usage_view(usage),
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
        state="ended",
        started_ns=START_WALL_NS,
        ending=Ending(
            outcome="success",
            reply="hello",
            usage=usage,
            model="small",
            format="plain",
            tokens=8,
            duration_ns=1_000_000_000,
        ),
    )
    numbered = [one for batch in [b async for b in house.turns.watch(record.turn_id, 0, 1)] for one in batch]
    assert [(one.number, one.name) for one in numbered] == [(n, e.name) for n, e in enumerate(house.events, 1)]
    assert [unit.name for unit in await house.store.units(record.turn_id)] == ["search"]
    assert house.turns.live == {}


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
    (ending,) = await house.endings()
    assert (ending.outcome, ending.error, ending.reply) == (outcome, heard.code, "")
    assert (house.ended.outcome, house.ended.error, house.ended.reply) == (outcome, heard.code, "")
    assert (house.turns.live, house.turns.orphans) == ({}, {})


async def test_a_turn_that_takes_too_long_is_stopped_and_stored() -> None:
    house = House()
    with pytest.raises(DeadlineExceeded):
        await house.ask(hang)
    assert now() == TURN_S
    (ending,) = await house.endings()
    assert (ending.outcome, ending.error, ending.duration_ns) == ("timeout", "deadline_exceeded", TURN_S * 1e9)
    assert (house.ended.outcome, house.ended.error, house.ended.duration_s) == ("timeout", "deadline_exceeded", TURN_S)


async def test_a_turn_has_its_own_time_once_it_has_its_place() -> None:
    house = House()

    async def slow(current: Turn) -> str:
        await asyncio.sleep(60)
        left = remaining_s(loop_clock())
        return f"{current.message}: {left:g} s left"

    async with asyncio.TaskGroup() as group:
        first = group.create_task(house.ask(slow, "first"))
        second = group.create_task(house.ask(slow, "second"))
    assert first.result().reply == "first: 40 s left"
    assert second.result().reply == "second: 40 s left"
    assert now() == 120


async def stopped_at(house: House, behave: Behaviour, *times: float) -> Answer | BaseException:
    """Run a turn, have it stopped at these times, and see what it came to."""
    async with asyncio.TaskGroup() as group:
        begun = house.begin(group, behave)
        turn_id = (await begun.accepted).turn_id
        for time in times:
            await asyncio.sleep(time - now())
            await house.turns.cancel(turn_id)
        return await outcome_of(begun)


async def test_a_stopped_turn_is_stored_and_told_as_cancelled() -> None:
    house = House()
    assert isinstance(await stopped_at(house, hang, 3), TurnCancelled)
    (ending,) = await house.endings()
    assert (ending.outcome, ending.error) == ("cancelled", "turn_cancelled")
    assert (house.ended.outcome, house.ended.error) == ("cancelled", "turn_cancelled")
    assert now() == 3


async def test_stopping_it_twice_does_not_keep_it_from_being_stored() -> None:
    house = House()
    house.faults.end_s = 2
    assert isinstance(await stopped_at(house, hang, 3, 4), TurnCancelled)
    assert [ending.outcome for ending in await house.endings()] == ["cancelled"]
    assert house.ended.outcome == "cancelled"


async def test_a_turn_stopped_while_its_answer_is_stored_has_its_answer() -> None:
    """What is stored, what is told and what the caller hears is one and the same."""
    house = House()
    house.faults.end_s = 2
    answer = await stopped_at(house, echo, 2)
    assert isinstance(answer, Answer)
    assert answer.reply == "you said hello"
    assert [ending.outcome for ending in await house.endings()] == ["success"]
    assert house.ended.outcome == "success"


async def test_a_turn_that_waits_for_its_session_can_be_stopped() -> None:
    house = House()
    async with asyncio.TaskGroup() as group:
        first = house.begin(group, echo)
        second = house.begin(group, echo)
        await house.turns.cancel((await second.accepted).turn_id)
        assert isinstance(await outcome_of(second), TurnCancelled)
        assert now() == 0
        await first
    assert [ending.outcome for ending in await house.endings()] == ["success", "cancelled"]


async def everything(current: Turn) -> str:
    """An agent whose turn has a suspension point of every kind."""

    async def call(*_: object) -> str:
        await asyncio.sleep(0)
        return "ok"

    await current.guard.model(ModelKey("sim", "small"), None, call)
    await current.guard.tool("search", {}, "id", call)
    return "done"


LASTING = [True, False]


@pytest.mark.parametrize("lasts", LASTING)
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("at", range(1, 40))
async def test_cancelled_anywhere_a_turn_that_was_accepted_ends_or_can_be_gone_on_with(
    at: int,
    times: int,
    lasts: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """A process that stops cancels its turns: one that can go on elsewhere does, and one that cannot is told so."""
    house = House()
    house.store.lasts = lasts
    async with asyncio.TaskGroup() as group:
        begun = house.begin(group, everything)
        for _ in range(at):
            await asyncio.sleep(0)
        for _ in range(times):
            for task in house.drain._running:
                task.cancel()
            await asyncio.sleep(0)
        heard = await outcome_of(begun)
    stored = await house.stored()
    assert (house.turns.live, house.turns.orphans) == ({}, {})
    assert remaining_s(loop_clock()) is None
    assert at < 39 or isinstance(heard, Answer)  # By then it is over: every point before has been tried.
    started = sum(isinstance(event, ModelStarted | ToolStarted) for event in house.events)
    assert started == sum(isinstance(event, ModelFinished | ToolFinished) for event in house.events)
    if not stored:
        assert isinstance(heard, TurnCancelled)
        assert house.seen == []
        return
    (record,) = stored
    if record.state == "ended":
        assert record.ending is not None
        assert record.ending.outcome == house.ended.outcome == ("success" if isinstance(heard, Answer) else "cancelled")
    else:
        assert lasts
        assert isinstance(heard, HandedOver | TurnCancelled)
        assert (record.state, record.owner) in (("queued", None), ("running", "one"))
        if house.seen:
            assert isinstance(house.events[-1], TurnSuspended)


async def test_the_store_fails_before_the_agent_is_asked() -> None:
    house = House()
    house.faults.at_accept = StoreUnavailable("down")
    with pytest.raises(StoreUnavailable):
        await house.ask(echo)
    assert house.seen == []


@pytest.mark.parametrize(
    "raised", [StoreUnavailable("down"), OSError("disk"), Unprocessable("odd")], ids=lambda value: type(value).__name__
)
async def test_a_turn_whose_end_cannot_be_stored_has_not_ended(raised: BaseException) -> None:
    """Its caller hears that; and it goes on once the store is back."""
    house = House()
    house.faults.at_end = raised
    with pytest.raises(StoreUnavailable):
        await house.ask(echo)
    assert await house.state() == "running"
    assert [claim.turn_id for claim in house.turns.orphans] == [(await house.stored())[0].turn_id]
    assert not any(isinstance(event, TurnEnded) for event in house.events)
    house.faults.at_end = None
    async with asyncio.TaskGroup() as group:
        keeper = Keeper("one", house.turns, house.agents, house.drain, lease_s=5, keep_s=60)
        async with keeper.keeping(group.create_task):
            ended = await house.turns.ended((await house.stored())[0].turn_id)
    assert ended.ending is not None
    assert (ended.ending.reply, ended.generation) == ("you said hello", 2)


async def test_a_store_that_is_away_for_a_moment_costs_that_moment() -> None:
    house = House()
    house.faults.at_end = StoreUnavailable("down")
    async with asyncio.TaskGroup() as group:
        begun = house.begin(group, echo)
        await asyncio.sleep(5)
        house.faults.at_end = None
        assert (await begun).reply == "you said hello"
    assert 5 <= now() < 6


async def test_a_store_that_hangs_is_not_waited_for_for_ever() -> None:
    house = House()
    house.faults.accept_s = 10_000
    with pytest.raises(StoreUnavailable):
        await house.ask(echo)
    assert now() == STORE_S

    house = House()
    house.faults.end_s = 10_000
    with pytest.raises(StoreUnavailable):
        await house.ask(echo)
    assert now() == STORE_S + 1 + KEEP_S


async def test_a_session_that_stays_busy_refuses_and_nothing_is_done() -> None:
    house = House(session_wait_s=5)
    async with asyncio.TaskGroup() as group:
        first = house.begin(group, hang)
        await first.accepted
        asked: list[Turn] = []

        async def never(current: Turn) -> str:
            asked.append(current)
            return "never"

        busy = await outcome_of(house.begin(group, never))
        assert isinstance(busy, SessionBusy)
        assert (now(), busy.retry_after_s, asked) == (5, 1, [])
        await house.turns.cancel((await first.accepted).turn_id)
    assert [ending.outcome for ending in await house.endings()] == ["cancelled", "rejected"]


async def test_a_session_that_is_busy_refuses_at_once_where_nobody_waits() -> None:
    house = House(session_wait_s=0)
    async with asyncio.TaskGroup() as group:
        first = house.begin(group, echo)
        await first.accepted
        assert isinstance(await outcome_of(house.begin(group, echo)), SessionBusy)
        assert now() == 0
    assert len(await house.stored()) == 1


async def test_whoever_waits_as_long_as_it_takes_is_not_refused() -> None:
    house = House(session_wait_s=0)
    async with asyncio.TaskGroup() as group:
        house.begin(group, echo, "first")
        second = house.begin(group, echo, "second", waits=True)
        assert (await second).reply == "you said second"
    assert now() == 2


async def test_what_is_asked_again_under_the_same_key_is_the_same_turn() -> None:
    house = House()
    async with asyncio.TaskGroup() as group:
        first = house.begin(group, echo, key="k", digest=b"1")
        again = house.begin(group, echo, key="k", digest=b"1")
        assert await first == await again
        assert (first.again, again.again) == (False, True)
    with pytest.raises(KeyReused):
        await house.ask(echo, key="k", digest=b"2")
    assert (await house.ask(echo, key="k", digest=b"2", who="ben")).turn_id != (await first).turn_id
    with pytest.raises(ModelUnavailable, match="down"):
        await house.ask(raising(ModelUnavailable("down")), key="fails", digest=b"")
    with pytest.raises(ModelUnavailable, match="down"):
        await house.ask(echo, key="fails", digest=b"")
    assert len(await house.stored()) == 2


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
    assert [(r.outcome, r.error, r.reply) for r in await house.endings()] == [("error", "agent_failed", "")]


async def test_somebody_who_ends_the_process_ends_it() -> None:
    """A keyboard interrupt is not the agent's failure."""
    house = House()
    record = (await house.store.accept(new_turn(), 0)).turn
    journal = Journal(house.store, Claim(record.turn_id, "one", 1), Story(), loop_clock())
    with pytest.raises(KeyboardInterrupt):
        await turn(record, nothing_before, Scripted(interrupted), journal, Policies(WIDE, loop_clock()), [])


async def nothing_before() -> list[Past]:
    return []


def new_turn() -> NewTurn:
    return NewTurn(
        principal="anna",
        session_id="talk",
        agent="scripted",
        trace_id="t" * 32,
        request_id="r",
        source_ip="",
        message="hello",
        owner="one",
        accepted_ns=1,
    )


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
        (asyncio.CancelledError(), "cancelled", "turn_cancelled"),
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
