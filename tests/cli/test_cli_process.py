"""``holdfast serve`` as a process: how it begins, and how it ends."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Holdfast, Process, Start, Until


class Stream:
    """A turn that is watched as it happens."""

    def __init__(self, http: httpx2.Client, url: str, message: str, agent: str = "talk") -> None:
        body = {"message": message, "session_id": "s", "agent": agent}
        self._open = http.stream("POST", f"{url}/chat", json=body, headers={"accept": "text/event-stream"})
        self._lines = self._open.__enter__().iter_lines()
        self.until("text.delta")

    def until(self, name: str) -> Any:
        """The data of the next event of this name."""
        for line in self._lines:
            if line == f"event: {name}":
                return json.loads(next(self._lines).removeprefix("data: "))
        raise AssertionError(f"there was no {name}")

    def close(self) -> None:
        self._open.__exit__(None, None, None)


def outcomes(folder: Path) -> list[tuple[str, str | None]]:
    """What is in the store: None for a turn that is not over."""
    with closing(sqlite3.connect(folder / "data" / "holdfast.db")) as database:
        return database.execute("SELECT message, outcome FROM turns ORDER BY started_ns").fetchall()


def shutdown(folder: Path, deadline_s: float) -> None:
    (folder / "holdfast.toml").write_text(f"[shutdown]\ndeadline_s = {deadline_s}\n")


def test_a_stop_lets_the_turn_finish_and_refuses_new_ones(
    serve: Start, http: httpx2.Client, folder: Path, until: Until
) -> None:
    server = serve("agents.py:talk")
    for told in (
        r"Holdfast \d",
        r"agents +talk \(default\), assistant",
        "model +demo",
        "store +sqlite:data/holdfast.db",
    ):
        assert server.wait_for(told)
    where = httpx2.URL(server.url)
    silent = socket.create_connection((where.host, where.port or 0))
    turn = Stream(http, server.url, "first")
    server.send(signal.SIGTERM)
    until(lambda: http.get(f"{server.url}/readyz").status_code == 503)
    assert http.get(f"{server.url}/health/live").status_code == 200
    refused = http.post(f"{server.url}/chat", json={"message": "second"})
    assert (refused.status_code, refused.json()["code"]) == (503, "draining")
    assert 1 <= int(refused.headers["retry-after"]) <= 30
    (folder / "go").touch()
    assert turn.until("turn.ended")["reply"] == "one two"
    turn.close()
    assert server.ended() == 0
    assert outcomes(folder) == [("first", "success")]
    server.is_quiet()
    with closing(silent):  # neither this connection nor those that were kept alive are waited for
        assert silent.recv(1) == b""
    assert time_of(server, "stopped") - time_of(server, "agent_complete") < 2
    assert [json.loads(line)["event"] for line in server.err][-1] == "stopped"


@pytest.mark.slow
def test_ctrl_c_is_a_stop_too(serve: Start) -> None:
    server = serve()
    server.send(signal.SIGINT)
    assert server.ended() == 0
    server.is_quiet()


def time_of(server: Process, event: str) -> float:
    """Seconds past the hour at which the server logged this."""
    minutes, seconds = server.wait_for(rf'T\d\d:(\d\d):([\d.]+)Z","level":"info".*"event":"{event}"').groups()
    return int(minutes) * 60 + float(seconds)


@pytest.mark.slow
def test_a_second_signal_stops_the_turn_that_runs_and_leaves_it_to_the_next_process(
    serve: Start, http: httpx2.Client, folder: Path, until: Until
) -> None:
    server = serve("agents.py:talk")
    turn = Stream(http, server.url, "first")
    server.send(signal.SIGTERM)
    until(lambda: http.get(f"{server.url}/readyz").status_code == 503)
    server.send(signal.SIGINT)
    assert turn.until("error")["code"] == "handed_over"
    turn.close()
    assert server.ended() == 0
    assert outcomes(folder) == [("first", None)]
    server.is_quiet()
    (folder / "go").touch()
    again = serve("agents.py:talk")
    until(lambda: outcomes(folder) == [("first", "success")])
    again.send(signal.SIGTERM)
    assert again.ended() == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("agent", "last"), [("stubborn", signal.SIGTERM), ("stuck", signal.SIGINT), ("busy", signal.SIGTERM)]
)
def test_a_third_signal_ends_it_at_once(
    serve: Start, http: httpx2.Client, folder: Path, until: Until, agent: str, last: signal.Signals
) -> None:
    """Even where a turn will not be cancelled, a thread does not end, or the loop is held up for good."""
    shutdown(folder, 600)
    server = serve(f"agents.py:{agent}")
    turn = Stream(http, server.url, "first", agent)
    if agent == "busy":
        (folder / "go").touch()
        server.wait_for("loop_blocked")
    for number in (signal.SIGTERM, signal.SIGINT):
        server.send(number)
        if agent != "busy":
            server.wait_for('"phase":"draining"' if number is signal.SIGINT else '"event":"stopping"')
    server.send(last)
    if agent == "busy":  # Signals that come too fast are one for the system; none is heard by the loop.
        until(lambda: server.ended_by(last))
    assert server.ended() == 128 + last
    turn.close()


@pytest.mark.slow
def test_a_turn_that_takes_too_long_is_stopped_within_the_deadline(
    serve: Start, http: httpx2.Client, folder: Path
) -> None:
    shutdown(folder, 2)
    server = serve("agents.py:talk")
    turn = Stream(http, server.url, "first")
    server.send(signal.SIGTERM)
    assert turn.until("error")["code"] == "handed_over"
    turn.close()
    assert server.ended() == 0
    assert 1.5 < time_of(server, "stopped") - time_of(server, "stopping") < 2.5
    assert outcomes(folder) == [("first", None)]


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["stuck", "stubborn"])
def test_whatever_an_agent_does_the_process_ends(serve: Start, http: httpx2.Client, folder: Path, agent: str) -> None:
    shutdown(folder, 1)
    server = serve(f"agents.py:{agent}")
    turn = Stream(http, server.url, "first", agent)
    server.send(signal.SIGTERM)
    assert server.ended() == 1
    assert [json.loads(line)["event"] for line in server.err][-1] == "stop_overdue"
    turn.close()


@pytest.mark.slow
def test_a_request_that_is_still_being_sent_is_answered_at_the_stop(serve: Start) -> None:
    server = serve()
    where = httpx2.URL(server.url)
    with closing(socket.create_connection((where.host, where.port or 0))) as sending:
        sending.sendall(
            b"POST /chat HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{"
        )
        assert httpx2.get(f"{server.url}/health", trust_env=False).status_code == 200
        server.send(signal.SIGTERM)
        assert b"503 Service Unavailable" in sending.recv(65_536)
    assert server.ended() == 0


@pytest.mark.slow
def test_with_a_key_other_machines_may_be_listened_to(
    serve: Start, holdfast: Holdfast, http: httpx2.Client, folder: Path
) -> None:
    key = holdfast("keys", "create", "--user", "ada").out.strip()
    server = serve("--host", "0.0.0.0")
    assert server.wait_for("API keys needed")
    url = server.url.replace("0.0.0.0", "127.0.0.1")
    assert http.post(f"{url}/chat", json={"message": "hello"}).status_code == 401
    asked = http.post(f"{url}/chat", json={"message": "hello"}, headers={"x-api-key": key})
    assert asked.status_code == 200
    holdfast("keys", "revoke", key.split("_")[1])
    # Two seconds at most, which is what this waits for.
    while http.get(f"{url}/v1/sessions", headers={"x-api-key": key}).status_code == 200:
        pass
    server.send(signal.SIGTERM)
    assert server.ended() == 0


@pytest.mark.slow
def test_what_keeps_it_from_starting_is_one_line_of_a_process_too(start: Start) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        process = start("serve", "--port", str(taken.getsockname()[1]))
        assert process.ended() == 2
    assert process.out == []
    assert len(process.err) == 1
