"""
The kill matrix: a server is killed at every boundary of a turn, and its effects are counted from outside.

``python tests/kill/matrix.py`` runs all of it, and prints it as a table; ``--markdown`` prints that for the documents.
"""

import asyncio
import json
import re
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self
from urllib.parse import quote

import httpx2
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from tests.conformance.servers import PostgresServer, find
    from tests.kill.agents import returned
    from tests.kill.cases import (
        ASKED_ABOUT,
        EFFECTS,
        FUNCTION,
        PLACES,
        PYDANTIC,
        UNDER_WAY,
        WRONG,
        Case,
        Scenario,
        every_case,
    )
    from tests.kill.replica import PATIENCE_S, Replica
else:
    sys.path.insert(0, str(Path(__file__).parent))
    from agents import returned
    from cases import ASKED_ABOUT, EFFECTS, FUNCTION, PLACES, PYDANTIC, UNDER_WAY, WRONG, Case, Scenario, every_case
    from replica import PATIENCE_S, Replica
    from servers import PostgresServer, find

AT_ONCE = 3
"""Servers at a time: two cores, and each waits now and then."""


TOGETHER = 40
"""Turns of one chain at most."""


class Line(NamedTuple):
    """What a tool or a model told those outside."""

    run: str
    what: str
    did: str
    key: str


class Run(NamedTuple):
    """
    What was seen of one case.

    Attributes:
        reply: What the client was answered in the end.
        lines: What tools and models did.
        doubts: The tools that were in doubt, and whether somebody said that they had happened.
        died: How often the server was killed.
    """

    case: Case
    reply: str
    lines: Sequence[Line]
    doubts: Sequence[tuple[str, bool]]
    died: int

    def times(self, what: str, did: str) -> int:
        return sum((line.what, line.did) == (what, did) for line in self.lines)

    @property
    def middle(self) -> str:
        return f"middle_{self.case.effect}"


class Chain:
    """
    Turns of one agent on one store, at the same time: the server is killed once each of them is where it is to be.

    Attributes:
        deaths: How often the server was killed.
    """

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._up = asyncio.Event()
        self._up.set()
        self._left: dict[str, int] = {}
        self.deaths = 0

    async def play(self, cases: Sequence[Case], told: Callable[[Run], None]) -> list[str]:
        """
        Play the cases, and the same undisturbed before.

        Args:
            cases: Which ones: all of the same agent.
            told: Handed each run that was as promised.

        Returns:
            What was not, a text each.
        """
        replies: dict[tuple[Scenario, str], str] = {}
        for case in cases:
            if (case.scenario, case.effect) not in replies:
                whole = await self._play(f"whole{len(replies)}", case._replace(kill=(), beside=""))
                assert whole.doubts == []
                assert set(Counter((line.what, line.did) for line in whole.lines).values()) == {1}, whole.lines
                replies[case.scenario, case.effect] = whole.reply
        wrong: list[str] = []

        async def one(name: str, case: Case) -> None:
            try:
                run = await self._play(name, case)
                assert run.reply == replies[case.scenario, case.effect], run.reply
                judge(run)
                told(run)
            except (AssertionError, OSError, ValueError, KeyError, httpx2.HTTPError) as error:
                wrong.append(f"{case}: {type(error).__name__}: {error}\n{self._lines(name)}")
            finally:
                del self._left[name]

        named = {f"r{number}": case for number, case in enumerate(cases)}
        self._left = dict.fromkeys(named, 0)
        async with asyncio.TaskGroup() as group:
            for name, case in named.items():
                group.create_task(one(name, case))
            await self._kill_on()
        return wrong

    async def _kill_on(self) -> None:
        """Kill the server whenever every turn that is left is where it is to be killed."""
        while self._left:
            await asyncio.sleep(0.02)  # Another process decides when.
            held = [name for name, times in self._left.items() if self._held(name) > times]
            if not held or len(held) < len(self._left):
                continue
            self._up.clear()
            await self._replica.kill()
            self.deaths += 1
            for name in self._left.keys() & set(held):
                self._left[name] += 1
            await self._replica.start()
            self._up.set()

    def _held(self, name: str) -> int:
        held = self._replica.folder / f"{name}.held"
        return held.stat().st_size if held.exists() else 0

    async def _play(self, name: str, case: Case) -> Run:
        message = {"run": name, "effect": case.effect, "kill": case.kill, "beside": case.beside}
        doubts: list[tuple[str, bool]] = []
        async with asyncio.timeout(PATIENCE_S * (2 + len(case.kill))):
            while True:
                await self._up.wait()
                try:
                    scenario = case.scenario
                    answer = await self._replica.ask(scenario.agent, message, key=name, streams=scenario.streams)
                except httpx2.TransportError:
                    continue
                reply = said(answer, streams=scenario.streams)
                if reply is not None:
                    break
                doubts += await self._resolve(name)
                assert len(doubts) <= 4, doubts
        died = self._left.get(name, 0)
        assert died == len(case.kill), f"it was to be killed at {case.kill}, and died {died} times"
        return Run(case, reply, self._lines(name), doubts, died)

    async def _resolve(self, name: str) -> list[tuple[str, bool]]:
        """Say what became of the calls that are in doubt, as the file outside knows."""
        http = self._replica.http
        shown = (await http.get("/v1/turns?state=in_doubt&limit=200")).json()["turns"]
        [turn] = [turn for turn in shown if turn["session_id"] == f"s-{name}"]
        details = (await http.get(f"/v1/turns/{turn['turn_id']}")).json()
        units = [unit for unit in details["units"] if unit["state"] == "in_doubt"]
        assert units, details
        doubts = []
        for unit in units:
            happened = any((line.what, line.did) == (unit["name"], "effect") for line in self._lines(name))
            told = {"happened": happened, **({"result": returned(unit["name"])} if happened else {})}
            key = quote(unit["key"], safe="")
            answer = await http.post(f"/v1/turns/{turn['turn_id']}/units/{key}/resolve", json=told)
            assert answer.status_code == 200, answer.text
            doubts.append((unit["name"], happened))
        return doubts

    def _lines(self, name: str) -> list[Line]:
        outside = self._replica.folder / "outside.jsonl"
        lines = [Line(**json.loads(line)) for line in outside.read_bytes().splitlines()]
        return [line for line in lines if line.run == name]


def said(answer: httpx2.Response, *, streams: bool) -> str | None:
    """The reply; None where it is in doubt."""
    if not streams or answer.status_code != 200:
        body = answer.json()
        assert answer.status_code == 200 or body.get("code") == "in_doubt", body
        return str(body["reply"]) if answer.status_code == 200 else None
    events = {}
    for chunk in answer.text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in chunk.splitlines() if not line.startswith(":"))
        if fields:
            events[fields["event"]] = json.loads(fields["data"])
    if "turn.ended" in events:
        assert events["turn.ended"]["outcome"] == "success", events
        return str(events["turn.ended"]["reply"])
    assert "turn.suspended" in events, events
    return None


def judge(run: Run) -> None:
    """Whether what was seen is what is promised."""
    effect, places = run.case.effect, run.case.kill
    kept = any(place in UNDER_WAY or place in WRONG[1:3] for place in places)
    resolved = Counter(tool for tool, happened in run.doubts if not happened)
    for tool in {line.what for line in run.lines if not line.what.startswith("model")}:
        effects, calls = run.times(tool, "effect"), run.times(tool, "called")
        assert effects >= 1, f"{tool} never happened"
        if tool not in ("middle_pure", "middle_idempotent"):
            assert effects == 1, f"{tool} happened {effects} times"
        if tool not in ("middle_pure", "middle_idempotent", "middle_reconcile"):
            assert calls <= 1 + resolved[tool], f"{tool} was called {calls} times"
        if tool == "middle_idempotent":
            assert len({line.key for line in run.lines if line.what == tool}) == 1, "its key changed"
    assert run.times("first", "called") == 1 or "parallel" in run.case.scenario.agent, "a finished tool was run again"
    assert run.times(run.middle, "effect") >= 1, "it never happened"
    in_doubt = any(tool == run.middle for tool, _ in run.doubts)
    assert in_doubt == (kept and effect in (*ASKED_ABOUT, "picky")), run.doubts
    if effect in ("reconcile", "unknown"):
        assert bool(run.times(run.middle, "asked")) == kept
    if effect in ("pure", "idempotent") and places[0] in UNDER_WAY[1:]:
        assert run.times(run.middle, "called") == 1 + sum(place in UNDER_WAY[1:] for place in places)


def cell(runs: Iterable[Run]) -> str:
    """What happened at one place with one effect."""
    runs = list(runs)
    if not runs:
        return ""
    happened = {run.times(run.middle, "effect") for run in runs}
    words = " to ".join(str(times) for times in sorted({min(happened), max(happened)}))
    asked = any(run.times(run.middle, "asked") for run in runs)
    doubted = any(tool == run.middle for run in runs for tool, _ in run.doubts)
    return words + (" asked" if asked else "") + (" in doubt" if doubted else "")


def effects_by_place(runs: Sequence[Run]) -> list[list[str]]:
    """How often the effect happened: places down, effects across."""
    rows = [["killed", *EFFECTS]]
    for place in PLACES:
        here = [run for run in runs if run.case.kill == (place,)]
        rows.append([place, *(cell(run for run in here if run.case.effect == effect) for effect in EFFECTS)])
    return rows


def turns_by_shape(runs: Mapping[str, Sequence[Run]]) -> list[list[str]]:
    """What was killed: stores and shapes down."""
    rows = [["store", "turns", "number", "kills", "calls in doubt", "of which had happened"]]
    for store, every in runs.items():
        for shape in dict.fromkeys(run.case.scenario.name for run in every):
            some = [run for run in every if run.case.scenario.name == shape]
            doubts = [happened for run in some for _, happened in run.doubts]
            numbers = (len(some), sum(run.died for run in some), len(doubts), sum(doubts))
            rows.append([store, shape, *map(str, numbers)])
    return rows


class Stores(Protocol):
    """Where chains find a store of their own."""

    def __call__(self, home: Path) -> str:
        """The URL of a new one, for the chain that lives in ``home``."""


class Matrix:
    """
    Plays cases, some chains at a time.

    Args:
        folder: Where the servers run.
        at_once: How many servers there may be.

    Attributes:
        runs: Those that were as promised, by the name of their store.
        wrong: What was not as promised, a text each.
        deaths: How often servers were killed.
    """

    def __init__(self, folder: Path, at_once: int) -> None:
        self._folder = folder
        self._room = asyncio.Semaphore(at_once)
        self._homes = iter(range(1_000_000))
        self.runs: defaultdict[str, list[Run]] = defaultdict(list)
        self.wrong: list[str] = []
        self.deaths = 0

    async def play(self, cases: Iterable[Case], stores: Mapping[str, Stores]) -> None:
        """Play each of the cases on each of the stores."""
        chains: defaultdict[str, list[Case]] = defaultdict(list)
        for case in cases:
            chains[case.scenario.agent].append(case)
        async with asyncio.TaskGroup() as group:
            for name, make in stores.items():
                for chain in chains.values():
                    for at in range(0, len(chain), TOGETHER):
                        group.create_task(self._chain(name, make, chain[at : at + TOGETHER]))

    async def _chain(self, name: str, make: Stores, cases: Sequence[Case]) -> None:
        async with self._room:
            home = self._folder / f"{name}-{next(self._homes)}"
            home.mkdir()
            async with Replica(home, make(home), cases[0].scenario.agent) as replica:
                chain = Chain(replica)
                self.wrong += [f"{name}, {text}" for text in await chain.play(cases, self.runs[name].append)]
                self.deaths += chain.deaths


def sqlite(home: Path) -> str:
    """A file in the chain's own folder."""
    return f"sqlite:{home / 'holdfast.db'}"


class InPostgres:
    """A schema of the chain's own, in a server that is started for the block."""

    def __init__(self) -> None:
        self._server = PostgresServer()

    def __enter__(self) -> Self:
        self._server.initialise()
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.clean_up()

    def __call__(self, home: Path) -> str:
        """See ``Stores``."""
        return f"{self._server.url}?search_path={re.sub(r'[^a-z0-9]', '_', home.name)}"


def show(matrix: Matrix, *, markdown: bool) -> None:
    console = Console(soft_wrap=True, width=160)
    plain = [run for runs in matrix.runs.values() for run in runs if run.case.scenario in (FUNCTION, PYDANTIC)]
    for title, rows in (
        ("How often the effect happened", effects_by_place(plain)),
        ("What was killed", turns_by_shape(matrix.runs)),
    ):
        if markdown:
            lines = [" | ".join(row) for row in rows]
            lines.insert(1, " | ".join(["---"] * len(rows[0])))
            console.print(f"\n{title}\n", *(f"| {line} |" for line in lines), sep="\n")
            continue
        drawn = Table(*rows[0], title=title)
        for row in rows[1:]:
            drawn.add_row(*row)
        console.print(drawn)
    for line in matrix.wrong:
        console.print(f"[red]not as promised[/red] {escape(line)}")
    every = [run for runs in matrix.runs.values() for run in runs]
    killed = sum(run.died for run in every)
    console.print(f"{len(every)} turns, killed {killed} times in all; servers were killed {matrix.deaths} times")
    if not matrix.wrong:
        console.print("each turn ended with the answer of an undisturbed one, and its effects are as promised")


async def main(words: Sequence[str]) -> int:
    cases = [case for case in every_case() if all(word in str(case) for word in words if not word.startswith("-"))]
    with tempfile.TemporaryDirectory(prefix="holdfast-kill-") as folder, ExitStack() as held:
        stores: dict[str, Stores] = {"SQLite": sqlite}
        if find("initdb") is not None:
            stores["PostgreSQL"] = held.enter_context(InPostgres())
        matrix = Matrix(Path(folder), AT_ONCE)
        await matrix.play(cases, stores)
    show(matrix, markdown="--markdown" in words)
    return 1 if matrix.wrong else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
