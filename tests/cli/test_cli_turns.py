"""``holdfast turns`` against a running server."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from holdfast.server.chat import IDEMPOTENCY_KEY

if TYPE_CHECKING:
    from tests.cli.conftest import Holdfast, Process, Said, Start, Until

NOWHERE = "0000000000000000-1"


@pytest.fixture
def server(serve: Start) -> Process:
    return serve("agents.py:talk")


def lines(said: Said) -> list[list[str]]:
    """What a command that went well printed, by words."""
    assert (said.code, said.err) == (0, "")
    return [line.split() for line in said.out.splitlines()]


def begin(http: httpx2.Client, url: str, **body: Any) -> str:
    response = http.post(f"{url}/v1/turns", json={"message": "hello", "stream": True, **body})
    response.raise_for_status()
    return str(response.json()["turn_id"])


def test_turns_are_listed_shown_and_stopped(holdfast: Holdfast, server: Process, http: httpx2.Client) -> None:
    at = ("--url", server.url)
    assert holdfast("turns", "list", *at).out == "No turns.\n"
    answer = http.post(f"{server.url}/chat", json={"message": "What is 17*23?", "agent": "assistant"}).json()
    running = begin(http, server.url)
    head, first, second = lines(holdfast("turns", "list", *at))
    assert head == ["turn_id", "state", "outcome", "agent", "user_id", "started_at"]
    assert first[:5] == [running, "running", "-", "talk", "anonymous"]
    assert second[:5] == [answer["turn_id"], "ended", "success", "assistant", "anonymous"]
    assert [row[0] for row in lines(holdfast("turns", "list", "--state", "ended", *at))[1:]] == [answer["turn_id"]]
    assert [row[0] for row in lines(holdfast("turns", "list", "--limit", "1", *at))[1:]] == [running]
    assert holdfast("turns", "list", "--user", "eve", *at).out == "No turns.\n"
    assert lines(holdfast("turns", "cancel", running, *at)) == [[running, "is", "ended:", "cancelled"]]
    assert lines(holdfast("turns", "cancel", running, *at)) == [[running, "is", "ended:", "cancelled"]]

    shown = lines(holdfast("turns", "show", answer["turn_id"], *at))
    assert ["state", "ended"] in shown
    assert ["trace_id", answer["trace_id"]] in shown
    table = shown[shown.index([]) + 1 :]
    assert table[0] == ["key", "kind", "name", "attempt", "state", "effect", "args"]
    assert [row[1:6] for row in table[1:]] == [
        ["model", "demo", "1", "done", "pure"],
        ["tool", "calculate", "1", "done", "pure"],
        ["model", "demo", "1", "done", "pure"],
    ]
    assert "".join(table[2][6:]) == '{"expression":"17*23"}'
    assert ["error", "turn_cancelled:", *["The", "turn", "was", "stopped", "before", "it", "finished."]] in lines(
        holdfast("turns", "show", running, *at)
    )


def test_json_is_what_the_api_says(holdfast: Holdfast, server: Process, http: httpx2.Client) -> None:
    at = ("--url", server.url, "--json")
    turn_id = http.post(f"{server.url}/chat", json={"message": "hi", "agent": "assistant"}).json()["turn_id"]
    assert json.loads(holdfast("turns", "list", *at).out) == http.get(f"{server.url}/v1/turns").json()
    api = http.get(f"{server.url}/v1/turns/{turn_id}").json()
    for command in ("show", "cancel"):
        assert json.loads(holdfast("turns", command, turn_id, *at).out) == api


def test_a_turn_is_watched_to_its_end(
    holdfast: Holdfast, server: Process, http: httpx2.Client, start: Start, folder: Any
) -> None:
    turn_id = begin(http, server.url)
    watching = start("turns", "watch", turn_id, "--url", server.url)
    watching.wait_for("text.delta")
    (folder / "go").touch()
    assert watching.ended() == 0
    events = [json.loads(line) for line in watching.out]
    assert [(event["id"], event["name"]) for event in events] == [
        (1, "turn.started"),
        (2, "text.delta"),
        (3, "text.delta"),
        (4, "turn.ended"),
    ]
    assert events == http.get(f"{server.url}/v1/turns/{turn_id}/events").json()["events"]
    again = holdfast("turns", "watch", turn_id, "--after", "3", "--url", server.url)
    assert [json.loads(line) for line in again.out.splitlines()] == events[3:]


def test_watching_a_turn_that_fails_says_why(holdfast: Holdfast, server: Process, http: httpx2.Client) -> None:
    turn_id = begin(http, server.url)
    holdfast("turns", "cancel", turn_id, "--url", server.url)
    said = holdfast("turns", "watch", turn_id, "--url", server.url)
    assert (said.code, said.err) == (1, "holdfast: The turn was stopped before it finished.\n")
    assert [json.loads(line)["name"] for line in said.out.splitlines()][-1] == "turn.ended"


def test_ctrl_c_ends_the_watching_and_not_the_turn(
    server: Process, http: httpx2.Client, start: Start, holdfast: Holdfast
) -> None:
    turn_id = begin(http, server.url)
    watching = start("turns", "watch", turn_id, "--url", server.url)
    watching.wait_for("text.delta")
    watching.send(signal.SIGINT)
    assert watching.ended() == 130
    assert watching.err == []
    assert http.get(f"{server.url}/v1/turns/{turn_id}").json()["state"] == "running"


PAYER = """
import os
import signal
from pathlib import Path


async def pay(amount):
    with Path("paid").open("a") as paid:
        paid.write(f"{amount}\\n")
    if not Path("survive").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return f"paid {amount}"


async def payer(turn):
    return await turn.tool(pay, amount=7)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "reply", "paid"),
    [(("--happened", "--result", '"by hand"'), "by hand", "7\n"), (("--did-not-happen",), "paid 7", "7\n7\n")],
)
def test_what_became_of_a_call_is_decided_after_its_server_was_killed(
    holdfast: Holdfast, serve: Start, http: httpx2.Client, folder: Any, until: Until, words: Any, reply: str, paid: str
) -> None:
    (folder / "payer.py").write_text(PAYER)
    server = serve("payer.py:payer")
    key = {IDEMPOTENCY_KEY: "pay-7"}
    with pytest.raises(httpx2.HTTPError):
        http.post(f"{server.url}/chat", json={"message": "pay"}, headers=key)
    server.ended()
    (folder / "survive").touch()
    url = serve("payer.py:payer").url
    at = ("--url", url)
    until(lambda: "in_doubt" in holdfast("turns", "list", *at).out)
    (turn_id,) = (row[0] for row in lines(holdfast("turns", "list", "--state", "in_doubt", *at))[1:])
    asked = http.post(f"{url}/chat", json={"message": "pay"}, headers=key)
    assert (asked.status_code, asked.json()["code"], asked.json()["turn_id"]) == (409, "in_doubt", turn_id)
    (unit,) = (row for row in lines(holdfast("turns", "show", turn_id, *at)) if "in_doubt" in row and "tool" in row)
    assert unit[1:6] == ["tool", "pay", "1", "in_doubt", "once"]
    assert (folder / "paid").read_text() == "7\n"
    said = holdfast("turns", "resolve", turn_id, unit[0], *words, *at)
    assert said.out.startswith(f"{unit[0]} {'happened' if reply == 'by hand' else 'did not happen'}; {turn_id} is ")
    again = http.post(f"{url}/chat", json={"message": "pay"}, headers=key).json()
    assert (again["turn_id"], again["reply"], (folder / "paid").read_text()) == (turn_id, reply, paid)


MISTAKES = [
    (["show", NOWHERE], f"there is no turn {NOWHERE}"),
    (["cancel", NOWHERE], f"there is no turn {NOWHERE}"),
    (["watch", NOWHERE], f"there is no turn {NOWHERE}"),
    (["resolve", NOWHERE, "x", "--happened"], f"there is no turn {NOWHERE}"),
    (["resolve", NOWHERE, "x"], "say whether the call took effect"),
    (["resolve", NOWHERE, "x", "--happened", "--result", "{"], "--result must be JSON"),
    (["resolve", NOWHERE, "x", "--did-not-happen", "--result", "1"], "leave it out"),
    (["list", "--state", "over"], "query.state.0"),
    (["list", "--limit", "0"], "--limit"),
]


def test_a_mistake_is_one_line(holdfast: Holdfast, server: Process) -> None:
    for words, said in MISTAKES:
        came = holdfast("turns", *words, "--url", server.url)
        assert (came.code, came.out) == (2, "")
        (line,) = came.err.splitlines()
        assert said in line


def test_users_see_their_own_and_operators_decide(holdfast: Holdfast, serve: Start, http: httpx2.Client) -> None:
    ada, otto = (
        holdfast("keys", "create", "--user", user, *more).out.strip()
        for user, more in (("ada", ()), ("otto", ("--scope", "operate")))
    )
    at = ("--url", serve().url)
    response = http.post(f"{at[1]}/chat", json={"message": "hi"}, headers={"authorization": f"Bearer {ada}"})
    turn_id = response.json()["turn_id"]
    assert "A valid API key is required." in holdfast("turns", "list", *at).err
    for key in (ada, otto):
        assert [row[0] for row in lines(holdfast("turns", "list", *at, "--key", key))[1:]] == [turn_id]
    order = ("turns", "resolve", turn_id, "x", "--happened", *at, "--key")
    assert "this needs a key with the scope operate" in holdfast(*order, ada).err
    assert f"turn {turn_id} has no call x" in holdfast(*order, otto).err
