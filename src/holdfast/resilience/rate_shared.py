"""
The rate limits of a pipeline that several processes keep together.

::

    ask the share ── taken ──────────────────────────────────────────────> go
         │ not enough                                                       ^
         └─> the line of one's own key ── head: ─> everybody's line ── head: asks again
                    └ when that key alone is short, its head asks again from here

Who waits stands in line here, and only heads of lines ask again. So a user who wants more than their share holds one
place in everybody's line at most, and nobody stands there for units that only one user is short of. Between processes
there is no order, and in one process those whose questions are under way together may pass each other.
"""

import asyncio
from collections.abc import AsyncIterator, Hashable, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Literal, NamedTuple

from holdfast.clock import NS
from holdfast.resilience.bucket import Quota
from holdfast.resilience.circuit import Circuit, CircuitSpec, Permit, State, Why
from holdfast.resilience.compartment import BulkheadRefused, Compartment
from holdfast.resilience.guards import WAIT, Attempt, Ending, Surroundings, Waits
from holdfast.resilience.keys import Call, key_class
from holdfast.resilience.rate import BY, Limit, LimitView, Rate, RateGuard, Taken
from holdfast.resilience.share import Loans, Share, SharedNeed, ShareUnavailable

_AROUND_THE_SHARE = CircuitSpec(consecutive=3, open_s=1, max_open_s=2, need=1, lease_s=5)
_MOST_AT_HEAD = 16
"""Questions of one line that are under way together."""

_MOST_AT_ONCE = 100
"""Keys that the share is charged for at once: it answers in time, and nobody else waits for that."""

_TICK_NS = 1_000
"""The shortest sleep: below it, a loop's floating-point time may not move."""


class _Held(NamedTuple):
    """
    What an attempt has taken.

    Attributes:
        needs: Of each limit; empty where it was refused, and only observed.
        part: The buckets of this process that it came from, in the same order; empty where it came from the share.
        gate: Of this process's gate, if that was not open.
    """

    needs: list[SharedNeed]
    part: Taken
    gate: Taken


class _Short(NamedTuple):
    """Limit number ``at`` has not enough; ask again at ``ready``."""

    at: int
    ready: int


class _TooLong(Exception):
    def __init__(self, name: str, why: str, wait_ns: int | None) -> None:
        super().__init__(why)
        self.name, self.why, self.wait_ns = name, why, wait_ns


class _Line:
    """
    Those who stand in one line.

    At its head there is one as long as the limit is short, so that the share is asked only when it has something. While
    it has enough, ever more are there at once: else a line would go on where each answer takes longer than a unit.

    Attributes:
        head: Those at its head, and behind it.
        ready: When its head is to ask again.
        behind_ns: The time in which the units come that those behind the head want.
    """

    __slots__ = ("behind_ns", "head", "ready")

    def __init__(self, most: int) -> None:
        self.head = Compartment(1, most)
        self.ready = self.behind_ns = 0

    @property
    def wanted(self) -> int:
        """How many stand in it."""
        stats = self.head.stats
        return stats.in_use + stats.queued

    def wait_ns(self, now: int) -> int:
        """How long it takes at least until all who stand in it have what they want."""
        return max(0, self.ready - now) + self.behind_ns

    def widen(self) -> None:
        """Let twice as many to its head: there was enough for one who did not have to wait there."""
        self.head.resize(min(2 * self.head.limit, _MOST_AT_HEAD))


class SharedRateGuard(RateGuard):
    """The same as a ``RateGuard``, with the units kept by a ``Share`` as long as it answers."""

    def __init__(self, policy: Rate, around: Surroundings, share: Share) -> None:
        self._share = share
        self._replicas = share.replicas
        super().__init__(policy, around)
        self._circuit = Circuit(
            _AROUND_THE_SHARE, f"{around.name}:share", around.clock.random.random, self._tell_of_share
        )
        self._loans = Loans()
        self._lines: dict[tuple[int, str], _Line] = {}
        self._own = [at for at, limit in enumerate(policy.limits) if limit.key is not None]
        # The first of those that everybody has in common, which names their line; -1 where there is none.
        self._common = next((at for at, limit in enumerate(policy.limits) if limit.key is None), -1)

    def enter(self, attempt: Attempt, now: int) -> Waits:
        """The share is in another process: it is always waited for."""
        del attempt, now
        return WAIT

    async def wait(self, attempt: Attempt) -> _Held:
        """Take everything from the share; while it does not answer, from this process's part of it."""
        until = self._around.clock.now() + round(self._patience_s() * NS)
        gate = self._gate(attempt.call)
        if gate and self._queue.take_nowait(gate) is not None:
            gate = await self._queue_for(attempt, gate)
        try:
            needs = self._shared_needs(attempt.call)
            try:
                return _Held(list(needs), await self._take(attempt, needs, until), gate)
            except _TooLong as refused:
                self._refuse(attempt, refused.name, refused.why, refused.wait_ns)
                return _Held([], [], gate)
        except BaseException:
            self._queue.refund(gate)
            raise

    def leave(self, attempt: Attempt, token: Any, ending: Ending, now: int) -> None:
        """Give back what an attempt that was never made has taken, and shut the gate where the target asked for it."""
        held: _Held = token
        if not ending.ran:
            self._settle(held, [-need.cost for need in held.needs])
        super().leave(attempt, held.gate, ending, now)

    def adjust(self, attempt: Attempt, token: Any, used: Mapping[str, int]) -> None:
        """Say what was really used; as for limits of one process."""
        del attempt
        self._check_names(used)
        needs = token.needs
        spent = [used.get(need.name.rpartition(BY)[0], need.cost) for need in needs]
        self._settle(token, [units - need.cost for need, units in zip(needs, spent, strict=True)])
        needs[:] = [need._replace(cost=units) for need, units in zip(needs, spent, strict=True)]

    def views(self, now: int) -> Iterator[LimitView]:
        """Every limit, as an operator sees it; of keys, those of this process's part."""
        for at, view in enumerate(super().views(now)):
            yield view._replace(queued=sum(line.wanted for (limit, _), line in self._lines.items() if limit == at))

    def _settle(self, held: _Held, extra: list[int]) -> None:
        """Take more or give back: of the part what it still owes for, and all else of the share."""
        now = self._around.clock.now()
        more: list[SharedNeed] = []
        back: list[SharedNeed] = []
        for at, (need, units) in enumerate(zip(held.needs, extra, strict=True)):
            lent = held.part and self._loans.change(need, held.part[at][0], units, now)
            if units and not lent:
                (more if units > 0 else back).append(need._replace(cost=abs(units)))
        if more:
            self._share.charge(more)
        if back:
            self._share.refund(back)

    def _quota(self, limit: Limit, key: Hashable) -> Quota:
        """This process's part of a limit."""
        quota = super()._quota(limit, key)
        return Quota(quota.num, quota.den_ns * self._replicas, max(1, quota.burst // self._replicas))

    async def _take(self, attempt: Attempt, needs: tuple[SharedNeed, ...], until: int) -> Taken:
        """
        Take everything, standing in line if need be: in that of the key and, at its head, in everybody's too.

        Raises:
            _TooLong: the wait would be too long. Nothing was taken.
        """
        clock, call = self._around.clock, attempt.call
        began = clock.now()
        answer = self._behind(needs) or await self._ask(call, needs, until)
        if not isinstance(answer, _Short):
            return answer
        while isinstance(answer, _Short):
            if not self._own:
                answer = await self._take_in_everybodys_line(call, needs, answer, until)
                continue
            mine = answer.at if answer.at in self._own else self._own[0]
            async with self._stand(mine, needs, until) as line:
                at_once = True
                while isinstance(answer, _Short) and (answer.at == mine or answer.at not in self._own):
                    if answer.at == mine and await self._pause(line, answer.ready):
                        at_once = False
                    all_are_short = answer.at != mine and answer.ready > clock.now()
                    if all_are_short or self._behind_everybody(needs):
                        at_once = False
                        answer = await self._take_in_everybodys_line(call, needs, answer, until)
                    else:
                        answer = await self._ask(call, needs, until)
                if at_once:
                    line.widen()
        self._around.tell("rate.waited", "all", attempt.id, attempt.number, waited_s=(clock.now() - began) / NS)
        return answer

    async def _take_in_everybodys_line(
        self, call: Call, needs: tuple[SharedNeed, ...], answer: _Short, until: int
    ) -> Taken | _Short:
        """Take everything at the head of everybody's line, or find there that one's own key is short."""
        async with self._stand(self._common, needs, until) as line:
            at_once, ready = True, answer.ready if answer.at not in self._own else 0
            while True:
                if await self._pause(line, ready):
                    at_once = False
                found = await self._ask(call, needs, until)
                if not isinstance(found, _Short) or found.at in self._own:
                    break
                ready = found.ready
            if at_once:
                line.widen()
        return found

    def _behind(self, needs: tuple[SharedNeed, ...]) -> _Short | None:
        """Behind whom one has to stand before one may ask: those of one's own keys who wait longest, or everybody."""
        now = self._around.clock.now()
        waits = [(line.wait_ns(now), at) for at in self._own if (line := self._lines.get((at, needs[at].key)))]
        return _Short(max(waits)[1], 0) if waits else self._behind_everybody(needs)

    def _behind_everybody(self, needs: tuple[SharedNeed, ...]) -> _Short | None:
        at = self._common
        return _Short(at, 0) if needs and (at, needs[at].key) in self._lines else None

    @asynccontextmanager
    async def _stand(self, at: int, needs: tuple[SharedNeed, ...], until: int) -> AsyncIterator[_Line]:
        """
        Stand in the line for a limit; the block is run at its head.

        Raises:
            _TooLong: there is no place in it, or not enough time.
        """
        need, now = needs[at], self._around.clock.now()
        key = (at, need.key)
        line = self._lines.get(key) or _Line(self._policy.max_queue)
        own_ns = need.cost * need.quota.den_ns // need.quota.num
        wait_ns = line.wait_ns(now) + own_ns
        if key in self._lines and now + wait_ns > until:
            raise _TooLong(need.name, "wait", wait_ns)
        if line.wanted >= self._policy.max_queue:
            raise _TooLong(need.name, "full", wait_ns)
        self._lines[key] = line
        line.behind_ns += own_ns
        try:
            try:
                place = await line.head.enter((until - now) / NS)
            except BulkheadRefused:
                raise _TooLong(need.name, "timeout", line.wait_ns(self._around.clock.now())) from None
            finally:
                line.behind_ns -= own_ns
            try:
                yield line
            finally:
                line.head.leave(place)
        finally:
            # Who is cancelled leaves before this is run: by now there may be no line, or another one.
            if not line.wanted and self._lines.get(key) is line:
                del self._lines[key]

    async def _pause(self, line: _Line, ready: int) -> bool:
        """Wait at the head of a line until the share is to be asked again; whether that was a wait."""
        line.ready = ready
        left_ns = ready - self._around.clock.now()
        if left_ns <= 0:
            return False
        line.head.resize(1)
        await asyncio.sleep(max(left_ns, _TICK_NS) / NS)
        return True

    async def _ask(self, call: Call, needs: tuple[SharedNeed, ...], until: int) -> Taken | _Short:
        """
        Take everything now, from the share or from this process's part; or say which limit is short.

        Raises:
            _TooLong: there is not enough time to wait for it, or no time would be enough.
        """
        try:
            refusal = await self._ask_share(needs)
        except ShareUnavailable:
            part = self._part(call, needs)
            refusal = self._loans.take(self._around.clock.now(), needs, part)
        else:
            part = []
        if refusal is None:
            return part
        at, wait_ns = refusal
        if wait_ns is None:
            raise _TooLong(needs[at].name, "never", None)
        ready = self._around.clock.now() + wait_ns
        if ready > until:
            raise _TooLong(needs[at].name, "wait", wait_ns)
        return _Short(at, ready)

    async def _ask_share(self, needs: tuple[SharedNeed, ...]) -> tuple[int, int | None] | None:
        clock = self._around.clock
        began = clock.now()
        permit = self._circuit.acquire(began)
        if not isinstance(permit, Permit):
            raise ShareUnavailable
        outcome: Literal["ok", "fail", "none"] = "none"
        # A task of its own, in no group: who is cancelled leaves at once, and what comes then is given back.
        asked = asyncio.get_running_loop().create_task(self._share.take(needs))
        try:
            refusal = await asyncio.shield(asked)
            outcome = "ok"
        except ShareUnavailable:
            outcome = "fail"
            self._loans.away(began)
            raise
        except BaseException:
            asked.add_done_callback(partial(self._too_late, needs))
            raise
        finally:
            self._circuit.settle(permit, outcome, clock.now())
        owed = self._loans.collect()
        for first in range(0, len(owed), _MOST_AT_ONCE):
            self._share.charge(owed[first : first + _MOST_AT_ONCE])
        return refusal

    def _too_late(self, needs: tuple[SharedNeed, ...], asked: asyncio.Task[tuple[int, int | None] | None]) -> None:
        if not asked.cancelled() and asked.exception() is None and asked.result() is None:
            self._share.refund(needs)

    def _part(self, call: Call, needs: tuple[SharedNeed, ...]) -> Taken:
        """The buckets of this process, and what is to be taken of them."""
        if self._share.replicas != self._replicas:
            self._replicas = self._share.replicas
            self._requota()
        return self._needs(call, self._around.clock.now())[: len(needs)]

    def _shared_needs(self, call: Call) -> tuple[SharedNeed, ...]:
        needs = []
        for limit, _ in self._limits():
            kind, key = key_class(limit.key), None if limit.key is None else limit.key(call)
            name = f"{self._around.name}/{limit.name}/{kind}/{'' if key is None else key}"
            cost = call.costs.get(limit.name, 1)
            needs.append(SharedNeed(f"{limit.name}{BY}{kind}", name, super()._quota(limit, key), cost))
        return tuple(needs)

    def _tell_of_share(self, was: State, state: State, why: Why, now: int) -> None:
        del now
        if State.CLOSED in (was, state):  # That it is still away is no news.
            self._around.tell("share.moved", was=was.value, state=state.value, reason=why)
