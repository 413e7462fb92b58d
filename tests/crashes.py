"""A turn whose server dies at a chosen moment, and is run again by the next one, with what was kept."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from holdfast.errors import InDoubt, NotOwner
from holdfast.events import Event, TurnIds
from holdfast.guard import Conduct, Guard, GuardSpec, Policies
from holdfast.journal import JSON, Journal, Story
from holdfast.store import Claim, Past, Said, Unit
from holdfast.testing import loop_clock
from holdfast.turn import Ask, Reply, Turn

IDS = TurnIds("s", "t-1", "0" * 32, "agent")
Answer = Callable[[Turn], Awaitable[Reply]]


def done(name: str, n: int) -> str:
    """What the tools of these tests return."""
    return f"{name} {n} done"


class World:
    """
    What outlives a server: what it kept, and what its tools did.

    Args:
        dies_at: At which of its moments the server dies; they are counted from 1, and 0 never comes.

    Attributes:
        units: What was kept.
        did: How often each effect happened.
        moments: How many have passed.
    """

    def __init__(self, dies_at: int = 0) -> None:
        self.units: dict[tuple[str, str, int], Unit] = {}
        self.did: Counter[str] = Counter()
        self.said: list[Said] = []
        self.moments = 0
        self.dies_at = dies_at
        self.dead = asyncio.Event()

    @property
    def died(self) -> bool:
        return self.dead.is_set()

    async def moment(self) -> None:
        """A moment at which a server may die. Nothing that comes after it happens then."""
        self.moments += 1
        if self.moments == self.dies_at:
            self.dead.set()
        if self.died:
            await asyncio.Event().wait()

    async def do(self, name: str, n: int) -> str:
        """A tool's effect, and what it returns; the server may die before it and after it."""
        await self.moment()
        self.did[f"{name} {n}"] += 1
        await self.moment()
        await asyncio.sleep(0.1)
        return done(name, n)

    async def put_unit(self, claim: Claim, unit: Unit, said: Said | None = None) -> bool:
        """As a store does it. Whoever died by now is no owner."""
        del claim
        self.moments += 1
        if self.moments == self.dies_at:
            self.dead.set()
        if self.died:
            raise NotOwner
        self.units[unit.kind, unit.key, unit.attempt] = unit
        if said is not None:
            self.said.append(said)
        self.moments += 1
        if self.moments == self.dies_at:
            self.dead.set()
            raise NotOwner  # It is kept, and nobody hears of it.
        return False

    def began(self, name: str) -> int:
        """How often a call of this name was kept as begun, or more."""
        return sum(unit.name == name for unit in self.units.values())

    def resolve(self, unit: Unit) -> None:
        """Somebody looks at what a call in doubt did, and says so. The tools they know take ``n``, as ``done`` does."""
        n = msgspec.json.decode(unit.args or b"")["n"]
        alike = [other for other in self.units.values() if (other.name, other.args) == (unit.name, unit.args)]
        if self.did[f"{unit.name} {n}"] > sum(other.state == "done" for other in alike):
            settled = msgspec.structs.replace(unit, state="done", result=JSON.encode(done(unit.name, n)))
        else:
            settled = msgspec.structs.replace(unit, state="failed")
        self.units[unit.kind, unit.key, unit.attempt] = settled


class Server:
    """
    One server that runs the turn, from the start or from where the last one died.

    Attributes:
        events: What it told.
        journal: What it kept the turn with.
        turn: What the agent was given.
    """

    def __init__(
        self,
        world: World,
        message: str = "go",
        *,
        streams: bool = False,
        past: Sequence[Past] = (),
        generation: int = 1,
        spec: GuardSpec | None = None,
        policies: Policies | None = None,
        handing_over: Callable[[], bool] = lambda: False,
        conduct: Conduct | None = None,
    ) -> None:
        self.world = world
        self.events: list[Event] = []
        clock = loop_clock()
        story = Story(generation)
        self.journal = Journal(
            world,  # type: ignore[arg-type]  # a journal puts units, and asks a store for nothing else
            Claim("t-1", "r", generation),
            story,
            clock,
            list(world.units.values()),
            handing_over,
        )

        def emit(event: Event) -> None:
            self.events.append(event)
            story.take(event)

        ask = Ask(message=message, principal="p", session_id="s", trace_id="0" * 32, request_id="r", streams=streams)
        watch = conduct.watch("agent", emit, message, "t-1") if conduct is not None else None
        policies = policies or Policies(spec or GuardSpec(attempts=1), clock)
        guard = Guard(policies, emit, book=self.journal, watch=watch)
        self.turn = Turn(ask, IDS, past, guard, emit)

    async def run(self, answer: Answer) -> Reply | None:
        """Run the agent; None where the server died. What stopped the turn goes before what the agent made of it."""
        loop = asyncio.get_running_loop()
        running, dying = loop.create_task(_run(answer, self.turn)), loop.create_task(self.world.dead.wait())
        await asyncio.wait((running, dying), return_when=asyncio.FIRST_COMPLETED)
        if self.world.died:
            running.cancel()
            await asyncio.wait((running,))
            if not running.cancelled():
                running.exception()
            return None
        dying.cancel()
        await asyncio.wait((running,))
        if self.journal.stopped is not None:
            running.exception()
            raise self.journal.stopped
        return running.result()


async def _run(answer: Answer, turn: Turn) -> Reply:
    return await answer(turn)


async def whole(answer: Answer, world: World, deaths: Sequence[int] = (), **asked: object) -> tuple[Reply, int]:
    """
    Run a turn to its end, through the death of its server and through doubt.

    Args:
        answer: The agent.
        world: In which a server dies, or none does.
        deaths: After how many moments of its own each later server dies, as long as there are any.
        asked: For ``Server``.

    Returns:
        The reply, and how often somebody had to be asked.
    """
    reply = await Server(world, **asked).run(answer)  # type: ignore[arg-type]  # they are handed on
    doubts, generation, later = 0, 1, iter(deaths)
    while reply is None or world.died:
        world.dead, generation = asyncio.Event(), generation + 1
        world.dies_at = world.moments + after if (after := next(later, 0)) else 0
        server = Server(world, generation=generation, **asked)  # type: ignore[arg-type]  # the same
        try:
            reply = await server.run(answer)
        except InDoubt:
            doubts += 1
            unit = server.journal.in_doubt
            assert unit is not None
            world.resolve(unit)
            world.dead.set()
    return reply, doubts
