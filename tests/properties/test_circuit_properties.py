"""However calls come, answer, get lost and are forbidden: the breaker does as its model does and keeps its word."""

from collections import deque
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, precondition, rule

from holdfast.clock import NS
from holdfast.resilience.circuit import Circuit, CircuitSpec, Outcome, Permit, Refusal, State, Why

if TYPE_CHECKING:
    from tests.properties import circuit_model as model
else:
    import circuit_model as model  # pytest puts a test's folder on the path, and mypy the project's

FOREVER_S = 10_000_000
OUTCOMES: list[Outcome] = ["ok", "fail", "none"]
outcomes = st.sampled_from(OUTCOMES)

BY_TIME: dict[tuple[State, State], set[Why]] = {
    (State.CLOSED, State.OPEN): {"consecutive", "failure_ratio", "slow_ratio"},
    (State.OPEN, State.HALF_OPEN): {"break_over"},
    (State.HALF_OPEN, State.OPEN): {"probe_failed", "probe_slow", "probe_lost"},
    (State.HALF_OPEN, State.CLOSED): {"probes_ok"},
}
BY_ORDER: dict[Why, State] = {"force_open": State.FORCED_OPEN, "disable": State.DISABLED, "reset": State.CLOSED}


class Watch:
    """Sees every change of a breaker, and that it is a legal one."""

    def __init__(self) -> None:
        self.gen = 0
        self.seen: list[tuple[State, State, Why, int]] = []
        self.breaker: Circuit | None = None

    def __call__(self, was: State, to: State, why: Why, now: int) -> None:
        assert self.breaker is not None
        assert self.breaker.gen > self.gen, f"B0 the generation did not grow with {was} to {to}"
        assert was is not to
        assert BY_ORDER.get(why) is to or why in BY_TIME[was, to], f"B0 {was} to {to} by {why}"
        self.gen = self.breaker.gen
        self.seen.append((was, to, why, now))


def watched(spec: CircuitSpec, chance: float = 0.5) -> tuple[Circuit, Watch]:
    watch = Watch()
    breaker = watch.breaker = Circuit(spec, "test", lambda: chance, watch)
    return breaker, watch


def face(breaker: Circuit) -> tuple[object, ...]:
    """Everything that decides what it does next."""
    window = breaker._window
    sums = (window.total, window.fail, window.slow, window.streak)
    return breaker._kind, breaker.gen, breaker.inflight, tuple(breaker._leases), breaker._ok, breaker._open_until, sums


class SideBySide(RuleBasedStateMachine):
    """The real one and the model, told the same. One tick is one second, and the window forgets nothing."""

    permits = Bundle("permits")

    @initialize(
        consecutive=st.sampled_from([0, 2, 3]),
        min_calls=st.integers(1, 4),
        open_ticks=st.integers(1, 3),
        probes=st.integers(1, 3),
        need=st.integers(1, 3),
        lease=st.integers(1, 4),
    )
    def begin(self, consecutive: int, min_calls: int, open_ticks: int, probes: int, need: int, lease: int) -> None:
        self.bounds = model.Rules(min_calls, consecutive, open_ticks, probes, need, lease, window=FOREVER_S)
        self.model = model.Machine()
        spec = CircuitSpec(
            window_s=FOREVER_S,
            min_calls=min_calls,
            consecutive=consecutive or None,
            open_s=open_ticks,
            max_open_s=open_ticks,
            jitter=0,
            probes=probes,
            need=need,
            lease_s=lease,
        )
        self.real, self.watch = watched(spec)
        self.now = 0
        self.probes_said: list[str] = []

    @rule(ticks=st.sampled_from([1, 1, 1, 2, 5, 50]))
    def time_passes(self, ticks: int) -> None:
        self.now += ticks

    @rule(target=permits)
    def ask(self) -> object:
        foreseen = self.real.state(self.now * NS)
        until, was = self.real._open_until, self.real._kind
        self.model, wanted = model.acquire(self.model, self.now, self.bounds)
        answer = self.real.acquire(self.now * NS)
        assert isinstance(answer, Permit) == (wanted is not None)
        assert self.real._kind is foreseen, "state() told something else"
        if self.real._kind is not was:
            self.probes_said.clear()
        if wanted is None or isinstance(answer, Refusal):
            assert isinstance(answer, Refusal)
            assert (answer.retry_after_ns is None) == (answer.why == "forced_open")
            assert answer.retry_after_ns is None or answer.retry_after_ns > 0
            return multiple()
        assert was is not State.OPEN or (until is not None and self.now * NS >= until), "B3 let through while open"
        assert was is not State.FORCED_OPEN
        return (answer, wanted)

    @rule(pair=permits, outcome=outcomes)
    def answer(self, pair: object, outcome: Outcome) -> None:
        permit, wanted = cast("tuple[Permit, model.Permit]", pair)
        before, was, stale = face(self.real), self.real._kind, self.real.stale
        gone = permit.gen < 0
        late = permit.gen != self.real.gen
        if not gone:
            self.model = model.settle(self.model, wanted, outcome, self.now, self.bounds)
        if not late and permit.lease_end is not None:
            self.probes_said.append(outcome)
        self.real.settle(permit, outcome, self.now * NS)
        assert self.real.stale == stale + late
        assert not late or face(self.real) == before, "B4, B8"
        assert outcome != "none" or self.real._kind is was, "B5"
        if was is State.HALF_OPEN and self.real._kind is State.CLOSED:
            assert self.probes_said.count("ok") >= self.bounds.need, "B7"
            assert "fail" not in self.probes_said, "B7"
        if self.real._kind is not was:
            self.probes_said.clear()

    @rule()
    def it_fails_and_the_break_passes(self) -> None:
        """Chance alone would seldom come as far as to the probes."""
        while self.real._kind is State.CLOSED:
            self.answer(self.ask(), "fail")
        if self.real._kind is State.OPEN:
            assert self.real._open_until is not None
            self.now = max(self.now, self.real._open_until // NS)

    @rule(order=st.sampled_from(sorted(model.ORDERS)))
    def order(self, order: str) -> None:
        self.model = model.ordered(self.model, order, self.bounds)
        getattr(self.real, order)(self.now * NS)
        self.probes_said.clear()

    @rule()
    def the_same_rules_again(self) -> None:
        self.real.reconfigure(self.real.spec)

    @precondition(lambda self: self.real._kind is not State.FORCED_OPEN)
    @rule()
    def wait_for_ever(self) -> None:
        """B6: nobody answers any more, and somebody is let through all the same."""
        for _ in range(3):
            answer = self.real.acquire(self.now * NS)
            self.model, _ = model.acquire(self.model, self.now, self.bounds)
            if isinstance(answer, Permit):
                break
            assert answer.retry_after_ns is not None
            self.now += -(-answer.retry_after_ns // NS)
        else:
            raise AssertionError("B6 nobody is let through ever again")
        self.probes_said.clear()

    @invariant()
    def they_agree(self) -> None:
        real, wanted, window = self.real, self.model, self.real._window
        assert (real._kind.value, real.gen, real.inflight) == (wanted.kind, wanted.gen, wanted.inflight)
        assert tuple(end // NS for end in real._leases) == wanted.leases
        assert (window.total, window.fail) == (len(wanted.window), sum(wanted.window))
        if real._kind is State.OPEN:
            assert real._open_until == wanted.open_until * NS
        if real._kind is State.HALF_OPEN:
            assert real._ok == wanted.ok
            assert len(real._leases) == real.inflight <= self.bounds.probes, "B1, B2"
        assert self.watch.gen <= real.gen


TestSideBySide = SideBySide.TestCase
TestSideBySide.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


class Step(NamedTuple):
    after_ms: int
    what: str
    which: int
    outcome: Outcome
    slow: bool
    retry_after_s: int | None


steps = st.builds(
    Step,
    st.sampled_from([0, 0, 10, 400, 1_000, 6_000, 70_000, 700_000]),
    st.sampled_from(["ask"] * 6 + ["answer"] * 6 + ["force_open", "disable", "reset", "reset", "reconfigure"]),
    st.integers(0, 1_000),
    outcomes,
    st.booleans(),
    st.none() | st.integers(-5, 500),
)
specs = st.builds(
    CircuitSpec,
    window_s=st.sampled_from([0.5, 10, 60]),
    failure_ratio=st.sampled_from([0.1, 0.5, 1]),
    min_calls=st.integers(1, 6),
    consecutive=st.none() | st.integers(1, 4),
    slow_s=st.none() | st.just(1),
    slow_ratio=st.sampled_from([0.3, 1]),
    open_s=st.sampled_from([0.1, 5]),
    jitter=st.sampled_from([0, 0.2, 0.9]),
    probes=st.integers(1, 3),
    need=st.integers(1, 4),
    lease_s=st.sampled_from([0.2, 60]),
    heal_s=st.none() | st.just(30),
)
chances = st.floats(0, 1, exclude_max=True)


class Story:
    """A breaker after any history, and the permits that did not come back."""

    def __init__(self, spec: CircuitSpec, chance: float, other: CircuitSpec, history: list[Step]) -> None:
        self.breaker, self.watch = watched(spec, chance)
        self.now = 0
        self.out: list[Permit] = []
        self.back: list[Permit] = []
        for step in history:
            self.now += step.after_ms * 1_000_000
            self.play(step, other)
            assert self.breaker.inflight == sum(permit.gen == self.breaker.gen for permit in self.out), "B2"

    def play(self, step: Step, other: CircuitSpec) -> None:
        breaker = self.breaker
        if step.what == "ask":
            answer = breaker.acquire(self.now)
            if isinstance(answer, Permit):
                self.out.append(answer)
        elif step.what == "answer" and self.out:
            permit = self.out.pop(step.which % len(self.out))
            wait = None if step.retry_after_s is None else step.retry_after_s * NS
            breaker.settle(permit, step.outcome, self.now, slow=step.slow, retry_after_ns=wait)
            self.back.append(permit)
        elif step.what == "reconfigure":
            breaker.reconfigure(other)
        elif step.what in BY_ORDER:
            getattr(breaker, step.what)(self.now)


stories = st.builds(Story, specs, chances, specs, st.lists(steps, max_size=60))


@settings(max_examples=200, deadline=None)
@given(stories)
def test_time_alone_leads_to_an_admission(story: Story) -> None:
    """B6, whatever is forgotten, slow, lost or reconfigured: the wait that a refusal tells is never told in vain."""
    now, breaker = story.now, story.breaker
    for _ in range(8):
        answer = breaker.acquire(now)
        if isinstance(answer, Permit) or breaker.state(now) is State.FORCED_OPEN:
            return
        assert answer.retry_after_ns is not None
        now += answer.retry_after_ns
    raise AssertionError("nobody is let through ever again")


@settings(max_examples=200, deadline=None)
@given(stories, outcomes, st.booleans())
def test_an_answer_that_is_late_or_given_twice_changes_nothing(story: Story, outcome: Outcome, slow: bool) -> None:  # noqa: FBT001 - hypothesis draws it
    breaker = story.breaker
    late = [permit for permit in story.out if permit.gen != breaker.gen]
    for permit in late + story.back:
        before, stale = face(breaker), breaker.stale
        breaker.settle(permit, outcome, story.now, slow=slow, retry_after_ns=NS)
        assert (face(breaker), breaker.stale) == (before, stale + 1)


@settings(max_examples=200, deadline=None)
@given(stories)
def test_no_evidence_never_changes_the_state(story: Story) -> None:
    """B5: neither alone nor all together."""
    breaker = story.breaker
    kind, counts = breaker._kind, breaker.counts(story.now)
    for permit in story.out:
        breaker.settle(permit, "none", story.now, slow=True, retry_after_ns=NS)
        assert (breaker._kind, breaker.counts(story.now)) == (kind, counts)


@settings(max_examples=200, deadline=None)
@given(stories)
def test_all_counters_return_to_zero(story: Story) -> None:
    """B9: nothing is out, the window has passed and the break is forgotten."""
    breaker = story.breaker
    for permit in story.out:
        breaker.settle(permit, "none", story.now)
    assert breaker.inflight == 0
    assert breaker._leases == []
    much_later = story.now + 10_000 * NS
    assert breaker.counts(much_later) == (0, 0, 0)
    assert breaker.quiescent(much_later) == (breaker._kind is State.CLOSED)


@settings(max_examples=200, deadline=None)
@given(stories, st.lists(steps, max_size=40))
def test_a_quiescent_breaker_can_be_dropped(story: Story, then: list[Step]) -> None:
    """It and a new one tell the same of everything that follows."""
    for permit in story.out:
        story.breaker.settle(permit, "none", story.now)
    if story.breaker._kind is not State.CLOSED:
        story.breaker.reset(story.now)
    story.now += 1_000 * NS
    assert story.breaker.quiescent(story.now)
    fresh = Story(story.breaker.spec, story.breaker.chance(), story.breaker.spec, [])
    fresh.now, story.out, story.back = story.now, [], []
    story.watch.seen.clear()
    for step in then:
        for one in (story, fresh):
            one.now += step.after_ms * 1_000_000
            one.play(step, story.breaker.spec)
        assert story.breaker.state(story.now) is fresh.breaker.state(story.now)
        assert story.breaker.counts(story.now) == fresh.breaker.counts(story.now)
        assert story.breaker._open_until == fresh.breaker._open_until or story.breaker._kind is not State.OPEN
    assert story.watch.seen == fresh.watch.seen


@settings(max_examples=200, deadline=None)
@given(stories)
def test_reading_changes_nothing(story: Story) -> None:
    breaker = story.breaker
    before = (face(breaker), breaker._opens, breaker._closed_at)
    for now in (story.now, story.now + NS, story.now + 10_000 * NS):
        breaker.state(now)
        breaker.counts(now)
        breaker.quiescent(now)
    assert (face(breaker), breaker._opens, breaker._closed_at) == before


class Call(NamedTuple):
    after_s: int
    fail: bool
    slow: bool


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.builds(Call, st.sampled_from([0, 1, 2, 5, 7, 30, 55, 61]), st.booleans(), st.booleans()), max_size=60),
    st.none() | st.integers(1, 4),
    st.integers(1, 8),
    st.sampled_from(["0.1", "0.3", "0.5", "0.7", "1"]),
    st.none() | st.just(1),
)
def test_it_opens_exactly_when_a_plain_list_of_outcomes_says_so(
    calls: list[Call], consecutive: int | None, min_calls: int, ratio: str, slow_s: int | None
) -> None:
    """Of a window of twelve buckets of 5 s, with exact fractions."""
    spec = CircuitSpec(
        consecutive=consecutive,
        min_calls=min_calls,
        failure_ratio=float(ratio),
        slow_s=slow_s,
        slow_ratio=float(ratio),
    )
    breaker, watch = watched(spec)
    now, kept, row = 0, deque[tuple[int, Call]](), 0
    for call in calls:
        now += call.after_s
        permit = breaker.acquire(now * NS)
        assert isinstance(permit, Permit)
        breaker.settle(permit, "fail" if call.fail else "ok", now * NS, slow=call.slow)
        while kept and now // 5 - kept[0][0] >= 12:
            kept.popleft()
        row = (row if kept else 0) + 1 if call.fail else 0
        kept.append((now // 5, call))
        share = Fraction(sum(one.fail for _, one in kept), len(kept))
        slow_share = Fraction(sum(one.slow for _, one in kept) if slow_s else 0, len(kept))
        opens = consecutive is not None and row >= consecutive
        opens = opens or (len(kept) >= min_calls and max(share, slow_share) >= Fraction(ratio))
        assert (breaker.state(now * NS) is State.OPEN) == opens, (share, slow_share, row)
        if opens:
            assert len(watch.seen) == 1
            return
