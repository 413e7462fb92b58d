"""
Many turns at once, and the server is killed at a random moment: none is lost, and none is doubled.

``python tests/kill/load.py [REPETITIONS [TURNS]]`` does it again and again, and prints what it saw.
"""

import asyncio
import json
import random
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import httpx2
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from tests.conformance.servers import find
    from tests.kill.agents import returned
    from tests.kill.matrix import InPostgres, Stores, sqlite
    from tests.kill.replica import PATIENCE_S, Replica
else:
    sys.path.insert(0, str(Path(__file__).parent))
    from agents import returned
    from matrix import InPostgres, Stores, sqlite
    from replica import PATIENCE_S, Replica
    from servers import find

REPLY = f"{returned('add')}, {returned('pay')}"
LINES = 6
"""What a turn that runs undisturbed tells those outside."""

MANY = {
    "RESILIENCE__TURNS": "10000",
    "RESILIENCE__MODEL_QUEUE": "10000",
    "RESILIENCE__TOOL_QUEUE": "10000",
    "TELEMETRY__LOG_LEVEL": "error",
}


class Seen(NamedTuple):
    """
    What came of one repetition.

    Attributes:
        turns: How many were asked for.
        killed_s: When the server was killed, in seconds after the first was asked for.
        accepted: How many clients were told so before the kill.
        answered: How many were answered before the kill.
        in_doubt: How many stood in doubt after it.
        adds, pays: How often each effect happened.
        refused: How often a client that came back was asked to do so again.
        over_s: When the last turn had ended, in seconds after the kill.
    """

    turns: int
    killed_s: float
    accepted: int
    answered: int
    in_doubt: int
    adds: int
    pays: int
    refused: int
    over_s: float


class Crowd:
    """The clients."""

    def __init__(self, replica: Replica, turns: int) -> None:
        self._replica = replica
        self.names = [f"t{number}" for number in range(turns)]
        self.accepted: set[str] = set()
        self.answered: set[str] = set()
        self.refused = 0

    async def ask_all(self) -> None:
        """Everybody asks at once; whoever loses the server leaves."""
        async with asyncio.TaskGroup() as group:
            for name in self.names:
                group.create_task(self._ask(name))

    async def _ask(self, name: str) -> None:
        body = {"agent": "load", "message": json.dumps({"run": name}), "session_id": f"s-{name}"}
        headers = {"idempotency-key": name, "accept": "text/event-stream"}
        with suppress(httpx2.TransportError):
            async with self._replica.http.stream("POST", "/chat", json=body, headers=headers) as answer:
                async for line in answer.aiter_lines():
                    if line == "event: turn.started":
                        self.accepted.add(name)
                    elif line == "event: turn.ended":
                        self.answered.add(name)

    async def come_back(self, name: str) -> str:
        """The answer in the end, asked for again with the same key."""
        async with asyncio.timeout(PATIENCE_S * 6):
            while True:
                assert self._replica.runs
                with suppress(httpx2.TransportError):  # A connection that nobody had used for a while was closed.
                    reply = await self._ask_again(name)
                    if reply is not None:
                        return reply

    async def _ask_again(self, name: str) -> str | None:
        answer = await self._replica.ask("load", {"run": name}, key=name)
        body = answer.json()
        if answer.status_code == 200:
            return str(body["reply"])
        if answer.status_code == 503:
            self.refused += 1
            await asyncio.sleep(0.5)  # What a client does that is told to come back later.
        else:
            assert body["code"] == "in_doubt", body
            await self._resolve(body["turn_id"], name)
        return None

    async def _resolve(self, turn_id: str, name: str) -> None:
        """Say what became of the payment, as the file outside knows."""
        happened = effects(self._replica.folder)[name, "pay"] == 1
        told = {"happened": happened, **({"result": returned("pay")} if happened else {})}
        details = await self._replica.http.get(f"/v1/turns/{turn_id}")
        if details.status_code == 503:
            return  # It is asked for again.
        for unit in details.json()["units"]:
            if unit["state"] == "in_doubt":
                assert unit["name"] == "pay"
                path = f"/v1/turns/{turn_id}/units/{unit['key']}/resolve"
                answer = await self._replica.http.post(path, json=told)
                assert answer.status_code == 200 or answer.json()["code"] == "not_in_doubt", answer.text


def effects(folder: Path) -> Counter[tuple[str, str]]:
    """How often each effect of each turn happened, as the file outside knows."""
    lines = [json.loads(line) for line in (folder / "outside.jsonl").read_bytes().splitlines()]
    return Counter((line["run"], line["what"]) for line in lines if line["did"] == "effect")


def done(folder: Path) -> int:
    """How many lines the file outside has: how far the turns are."""
    outside = folder / "outside.jsonl"
    return outside.read_bytes().count(b"\n") if outside.exists() else 0


async def count(replica: Replica, state: str) -> int:
    """How many turns are in a state."""
    found, cursor = 0, None
    while True:
        query = {"state": state, "limit": "200"} | ({} if cursor is None else {"cursor": cursor})
        page = (await replica.http.get("/v1/turns", params=query)).json()
        found, cursor = found + len(page["turns"]), page["next"]
        if cursor is None:
            return found


async def repeat(folder: Path, store: str, turns: int, kill_at: float) -> Seen:
    """
    Once.

    Args:
        folder: Where the server runs.
        store: Its store.
        turns: How many, all at once.
        kill_at: How much of their work is done when the server is killed, as a share in [0, 1).

    Raises:
        AssertionError: a turn was lost, or doubled.
    """
    clock = asyncio.get_running_loop().time
    async with Replica(folder, store, "load", settings=MANY) as replica:
        crowd = Crowd(replica, turns)
        async with asyncio.TaskGroup() as group:
            asking, asked_at = group.create_task(crowd.ask_all()), clock()
            await asyncio.to_thread(_kill_at, replica, LINES * turns * kill_at, asking.done)
        killed_at = clock()
        await replica.died()
        accepted, answered = len(crowd.accepted), len(crowd.answered)
        await replica.start()
        while (await replica.http.get("/v1/turns?state=queued&state=running&limit=1")).json()["turns"]:  # noqa: ASYNC110 - the same
            await asyncio.sleep(0.1)
        over_s = clock() - killed_at
        in_doubt = await count(replica, "in_doubt")
        async with asyncio.TaskGroup() as group:
            replies = {name: group.create_task(crowd.come_back(name)) for name in crowd.names}
        wrong = {name: task.result() for name, task in replies.items() if task.result() != REPLY}
        assert not wrong, wrong
        assert await count(replica, "ended") == turns, "a turn is there twice"
        per_turn = effects(folder)
        doubled = {key: times for key, times in per_turn.items() if key[1] == "pay" and times != 1}
        assert not doubled, doubled
        lost = [name for name in crowd.names if not per_turn[name, "add"]]
        assert not lost, lost
    adds, pays = (sum(times for (_, what), times in per_turn.items() if what == tool) for tool in ("add", "pay"))
    return Seen(turns, killed_at - asked_at, accepted, answered, in_doubt, adds, pays, crowd.refused, over_s)


def _kill_at(replica: Replica, lines: float, over: Callable[[], bool]) -> None:
    """On a thread: the loop has its hands full with the clients."""
    pause = threading.Event()
    while done(replica.folder) < lines and not over():
        pause.wait(0.005)
    replica.signal(signal.SIGKILL)


async def main(repetitions: int, turns: int) -> None:
    """Do it again and again, on SQLite and on PostgreSQL in turn."""
    console = Console(soft_wrap=True, width=140)
    table = Table(*Seen._fields, title=f"{turns} turns at once, kill -9 at a random moment")
    chance = random.Random(repetitions)
    with tempfile.TemporaryDirectory(prefix="holdfast-load-") as home, ExitStack() as held:
        stores: list[Stores] = [sqlite]
        if find("initdb") is not None:
            stores.append(held.enter_context(InPostgres()))
        for number in range(repetitions):
            folder = Path(home) / f"load-{number}"
            folder.mkdir()
            seen = await repeat(folder, stores[number % len(stores)](folder), turns, chance.random())
            table.add_row(*(f"{value:.2f}" if isinstance(value, float) else str(value) for value in seen))
            console.print(seen)
    console.print(table)


if __name__ == "__main__":
    words = [int(word) for word in sys.argv[1:]]
    asyncio.run(main(words[0] if words else 20, words[1] if len(words) > 1 else 1_000))
