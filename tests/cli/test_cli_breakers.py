"""``holdfast breakers`` against a running server: what it shows, what it orders, and what it says to a mistake."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Holdfast, Process, Start

MODEL, TOOL = "model:function:demo", "tool:calculate"


@pytest.fixture
def server(serve: Start, http: httpx2.Client) -> Process:
    """A server whose assistant has calculated something once."""
    process = serve()
    http.post(f"{process.url}/chat", json={"message": "What is 17*23?"}).raise_for_status()
    return process


def lines(holdfast: Holdfast, *words: str) -> list[list[str]]:
    """What the command prints, by words."""
    said = holdfast("breakers", *words)
    assert (said.code, said.err) == (0, "")
    return [line.split() for line in said.out.splitlines()]


def refused(holdfast: Holdfast, *words: str, code: int = 2) -> str:
    """The one line."""
    said = holdfast("breakers", *words)
    assert (said.code, said.out) == (code, "")
    (line,) = said.err.splitlines()
    return line


def test_circuits_are_listed_and_steered(holdfast: Holdfast, server: Process, http: httpx2.Client) -> None:
    at = ("--url", server.url)
    head = ["name", "state", "retry_after_s", "calls", "failed", "slow", "inflight"]
    model = [MODEL, "closed", "-", "2", "0", "0", "0"]
    assert lines(holdfast, "list", *at) == [head, model, [TOOL, "closed", "-", "1", "0", "0", "0"]]
    assert lines(holdfast, "force-open", TOOL, *at) == [[TOOL, "is", "forced_open"]]
    assert lines(holdfast, "list", *at) == [head, model, [TOOL, "forced_open", "-", "0", "0", "0", "0"]]
    answer = http.post(f"{server.url}/chat", json={"message": "What is 17*23?"}).json()
    assert "lets nobody through" in answer["reply"]
    assert lines(holdfast, "disable", TOOL, *at) == [[TOOL, "is", "disabled"]]
    assert lines(holdfast, "reset", TOOL, *at) == [[TOOL, "is", "closed"]]


def test_json_is_what_the_api_says(holdfast: Holdfast, server: Process, http: httpx2.Client) -> None:
    at = ("--url", f"{server.url}/", "--json")
    api = http.get(f"{server.url}/v1/breakers").json()
    assert json.loads(holdfast("breakers", "list", *at).out) == api
    api["breakers"][1] |= {"state": "forced_open", "calls": 0}
    assert json.loads(holdfast("breakers", "force-open", TOOL, *at).out) == api["breakers"][1]
    assert http.get(f"{server.url}/v1/breakers").json() == api


def test_nothing_to_list_is_said_so(holdfast: Holdfast, serve: Start) -> None:
    assert holdfast("breakers", "list", "--url", serve().url).out == "No circuits: nothing was called yet.\n"


def test_a_name_that_is_unknown(holdfast: Holdfast, server: Process) -> None:
    for order in ("reset", "force-open", "disable"):
        line = refused(holdfast, order, "tool:a/b?c#d", "--url", server.url)
        assert line == f"holdfast: {server.url}: there is no circuit tool:a/b?c#d; there is {MODEL}, {TOOL}"


def test_keys_are_sent_and_those_without_the_scope_may_only_look(
    holdfast: Holdfast, serve: Start, http: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = holdfast("keys", "create", "--user", "ada").out.strip()
    operator = holdfast("keys", "create", "--user", "otto", "--scope", "operate").out.strip()
    url = serve().url
    headers = {"authorization": f"Bearer {plain}"}
    http.post(f"{url}/chat", json={"message": "What is 17*23?"}, headers=headers).raise_for_status()
    monkeypatch.setenv("OPERATOR", operator)
    assert "A valid API key is required." in refused(holdfast, "list", "--url", url)
    assert "A valid API key is required." in refused(holdfast, "reset", TOOL, "--url", url, "--key", "hf_no_key")
    assert lines(holdfast, "list", "--url", url, "--key", plain)[2][0] == TOOL
    line = refused(holdfast, "force-open", TOOL, "--url", url, "--key", plain)
    assert line.endswith("this needs a key with the scope operate")
    assert lines(holdfast, "force-open", TOOL, "--url", url, "--key", "env:OPERATOR") == [[TOOL, "is", "forced_open"]]


# Mistakes


@pytest.mark.parametrize(
    "url", ["nonsense", "127.0.0.1:8080", "ftp://here", "http://", "http://[::1", "http://h:99999"]
)
def test_an_address_that_is_none(holdfast: Holdfast, url: str) -> None:
    assert refused(holdfast, "list", "--url", url) == (
        f"holdfast: --url must be such as http://127.0.0.1:8080, got {url}"
    )


def test_an_address_where_nobody_listens(holdfast: Holdfast) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    line = refused(holdfast, "list", "--url", f"http://127.0.0.1:{port}")
    assert line.startswith(f"holdfast: cannot reach http://127.0.0.1:{port}: ")
    assert line.endswith("; give the server's address with --url")


@pytest.mark.parametrize("key", ["env:NO_SUCH", "env:"])
def test_a_variable_that_is_not_set(holdfast: Holdfast, key: str) -> None:
    line = refused(holdfast, "list", "--key", key)
    assert line == f"holdfast: --key is {key}, but the variable {key.removeprefix('env:')} is not set"


@pytest.mark.parametrize("key", ["a\nb", "hf_\N{SNOWMAN}", "a\r\nx-forged: 1"])
def test_a_key_that_cannot_be_sent_is_not_repeated(holdfast: Holdfast, key: str) -> None:
    line = refused(holdfast, "list", "--key", key)
    assert line == "holdfast: --key must be printable ASCII text, as holdfast keys create prints it"


@pytest.mark.parametrize("words", [["reset"], ["open", TOOL], ["reset", TOOL, "more"], ["list", "--nope"]])
def test_words_that_mean_nothing(holdfast: Holdfast, words: list[str]) -> None:
    assert refused(holdfast, *words)


# Other servers


Answer = Callable[[int, bytes], str]


@pytest.fixture
def answer() -> Iterator[Answer]:
    """The address of a server that always answers with this."""
    with ExitStack() as running:

        def answer(status: int, body: bytes) -> str:
            class Handler(BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    self.send_response(status)
                    self.send_header("content-length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

                def log_message(self, *_: object) -> None:
                    pass

            server = running.enter_context(HTTPServer(("127.0.0.1", 0), Handler))
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            running.callback(thread.join)
            running.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_port}"

        yield answer


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, b"<html>"), (200, b"[]"), (200, b'{"breakers":[{}]}'), (404, b"not here"), (404, b"{}"), (302, b"")],
)
def test_a_server_of_another_kind(holdfast: Holdfast, answer: Answer, status: int, body: bytes) -> None:
    url = answer(status, body)
    line = refused(holdfast, "list", "--url", url)
    assert line == f"holdfast: {url} does not answer as this version of Holdfast does; correct --url"


def test_a_server_in_trouble_is_no_mistake_of_the_users(holdfast: Holdfast, answer: Answer) -> None:
    problem: dict[str, Any] = dict.fromkeys(("type", "title", "code", "trace_id"), "x")
    url = answer(503, json.dumps(problem | {"status": 503, "detail": "The store is not available."}).encode())
    assert refused(holdfast, "list", "--url", url, code=1) == f"holdfast: {url}: The store is not available."


def test_on_a_terminal_it_is_a_table_with_every_name_in_full(
    holdfast: Holdfast, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "tool:[bold]" + "very_" * 20 + "long"
    facts = {"pipeline": "tool", "key_class": "tool", "calls": 12, "failed": 7, "slow": 3, "inflight": 1}
    shown = [facts | {"name": name, "state": "open", "retry_after_s": 12.345}]
    url = answer(200, json.dumps({"breakers": shown}).encode())
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")  # no colours
    out = holdfast("breakers", "list", "--url", url).out
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if "│" in line]
    assert cells[0][1:] == ["open", "12.3", "12", "7", "3", "1"]
    assert "".join(row[0] for row in cells) == name
