"""``holdfast keys``, ``chat``, ``doctor``, and ``holdfast`` itself."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from holdfast import __version__

if TYPE_CHECKING:
    from tests.cli.conftest import Holdfast, Said

KEY = r"hf_([0-9a-f]{12})_([0-9a-f]{64})"


def test_the_version(holdfast: Holdfast) -> None:
    assert holdfast("--version") == (0, f"holdfast {__version__}\n", "")


def test_without_words_it_helps(holdfast: Holdfast) -> None:
    said = holdfast()
    assert (said.code, said.err) == (0, "")
    for command in ("serve", "chat", "doctor", "sim", "config", "keys"):
        assert re.search(rf"\b{command}\b", said.out)


@pytest.mark.parametrize(
    "words", [["nope"], ["keys", "nope"], ["keys", "create"], ["keys", "revoke"], ["doctor", "now"]]
)
def test_words_that_mean_nothing_are_one_line(holdfast: Holdfast, words: list[str]) -> None:
    said = holdfast(*words)
    assert (said.code, said.out, len(said.err.splitlines())) == (2, "", 1)


# Keys


def test_a_key_is_shown_once_listed_and_revoked(holdfast: Holdfast, folder: Path) -> None:
    assert "No API keys" in holdfast("keys", "list").out
    made = holdfast("keys", "create", "--user", "front end", "--scope", "delegate", "--days", "90")
    assert (made.code, made.err) == (0, "")
    key = re.fullmatch(KEY + "\n", made.out)
    assert key is not None
    listed = holdfast("keys", "list").out
    assert re.fullmatch(rf"{key[1]}  good      \S+Z  front end  delegate\n", listed)
    assert holdfast("keys", "revoke", key[1]).out == f"revoked {key[1]}\n"
    assert holdfast("keys", "revoke", key[1]).code == 0
    assert re.search(rf"^{key[1]}  revoked ", holdfast("keys", "list").out)
    assert key[2].encode() not in (folder / "data" / "holdfast.db").read_bytes()


def test_a_key_that_expired_says_so(holdfast: Holdfast) -> None:
    holdfast("keys", "create", "--user", "ada", "--days", "1e-9")
    assert re.search(r"^\w+  expired   \S+  ada  -$", holdfast("keys", "list").out, re.MULTILINE)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["create", "--user", "ada", "--scope", "admin"], "there is no scope admin; there is delegate"),
        (["create", "--user", "  "], "--user must not be blank"),
        (["create", "--user", "a\nb"], "--user must not be blank, and must be printable"),
        (["create", "--user", "ada", "--days", "0"], "--days must be more than 0"),
        (["create", "--user", "ada", "--days", "-1"], "--days must be more than 0"),
        (["create", "--user", "ada", "--days", "nan"], "--days must be more than 0"),
        (["create", "--user", "ada", "--days", "inf"], "--days must be more than 0"),
        (["create", "--user", "ada", "--days", "1e300"], "--days must be more than 0"),
        (["revoke", "000000000000"], "there is no key 000000000000"),
        (["revoke", "' OR 1=1 --"], "there is no key ' OR 1=1 --"),
    ],
)
def test_a_key_that_cannot_be_is_one_line(holdfast: Holdfast, words: list[str], says: str) -> None:
    said = holdfast("keys", *words)
    assert (said.code, said.out) == (2, "")
    assert says in said.err
    assert len(said.err.splitlines()) == 1


def test_a_store_that_forgets_keeps_no_keys(holdfast: Holdfast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_STORE__URL", "memory:")
    for words in (["create", "--user", "ada"], ["list"], ["revoke", "x"]):
        said = holdfast("keys", *words)
        assert said.code == 2
        assert "store.url is memory:, which forgets keys at exit" in said.err


# Config


def test_config_takes_limits_for_single_tools_and_tells_every_mistake_in_them(holdfast: Holdfast, folder: Path) -> None:
    file = folder / "holdfast.toml"
    file.write_text("[resilience.tools.web_search]\ntimeout_s = 10\nper_s = 2\n")
    said = holdfast("config", "check")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("OK: holdfast.toml, 1 of ")
    shown = holdfast("config", "show").out
    assert re.search(r"^resilience\.tools\.web_search\.per_s +2 +holdfast\.toml$", shown, re.MULTILINE)
    assert '"ToolLimits"' in holdfast("config", "schema").out
    file.write_text("[resilience.tools.web_search]\ntimeout = 10\nper_s = 0\n")
    path = "resilience.tools.web_search"
    unknown = f"holdfast.toml: unknown key {path}.timeout; did you mean {path}.timeout_s?"
    outside = f"holdfast.toml: {path}.per_s must be between 1 and 1000000, got 0"
    for command in ("check", "show"):
        assert holdfast("config", command) == (2, "", f"holdfast: {unknown}\n{outside}\n")


# Chat


Talk = Callable[..., "Said"]


@pytest.fixture
def talk(holdfast: Holdfast, monkeypatch: pytest.MonkeyPatch) -> Talk:
    """Run ``holdfast chat`` with these lines on standard input."""

    def talk(lines: str | bytes, *words: str) -> Said:
        data = lines if isinstance(lines, bytes) else lines.encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), "utf-8"))
        return holdfast("chat", *words)

    return talk


def test_chat_answers_what_is_piped_in_and_shows_its_tool_calls(talk: Talk) -> None:
    said = talk("What is 17*23?\n\n   \nWhat is 2+2?")
    assert (said.code, said.err) == (0, "")
    assert "assistant on demo, session s_" in said.out
    assert "  · calculate(expression='17*23')" in said.out
    assert '  · calculate → {"expression":"17*23","result":391}' in said.out
    assert "17*23 = 391\nturn " in said.out
    assert "2+2 = 4" in said.out
    assert said.out.count("turn ") == 2


def test_chat_goes_on_with_a_session_of_one_user(talk: Talk, folder: Path) -> None:
    talk("my name is Ada\n", "agents.py:past", "--session", "s")
    assert "my name is Ada\nturn " in talk("who am I?\n", "agents.py:past", "--session", "s").out
    assert "Ada" not in talk("who am I?\n", "agents.py:past", "--session", "other").out
    assert "Ada" not in talk("who am I?\n", "agents.py:past", "--session", "s", "--user", "eve").out
    with closing(sqlite3.connect(folder / "data" / "holdfast.db")) as database:
        assert database.execute("SELECT turns FROM sessions WHERE principal = 'anonymous'").fetchall() == [(2,), (1,)]


AGENT = """
async def say(turn):
    turn.say(TEXT)
    return TEXT


async def fail(turn):
    turn.say("half a ")
    raise ValueError("no")
"""


def test_chat_shows_text_as_it_is_but_lets_nobody_steer_the_terminal(talk: Talk, folder: Path) -> None:
    text = "[bold]x[/bold] :smile: \x1b[31mred\x1b]0;title\x07 a\tb \\[/dim]\r\x9b2J done"
    (folder / "odd.py").write_text(AGENT.replace("TEXT", repr(text)))
    said = talk("hello\n", "odd.py:say")
    bad = "\N{REPLACEMENT CHARACTER}"
    assert f"[bold]x[/bold] :smile: {bad}[31mred{bad}]0;title{bad} a" in said.out
    assert re.search(rf"\\\[/dim\]{bad}{bad}2J done\nturn \w", said.out)
    assert not set(said.out) & {"\x1b", "\x07", "\r", "\x9b"}


def test_chat_tells_of_a_turn_that_fails_and_goes_on(talk: Talk, folder: Path) -> None:
    (folder / "odd.py").write_text(AGENT.replace("TEXT", "''"))
    said = talk("one\ntwo\n", "odd.py:fail")
    assert said.out.count("half a \nthe agent fail raised ValueError\n") == 2
    assert said.code == 0


def test_chat_reads_bytes_that_are_no_text(talk: Talk) -> None:
    assert "my name is \N{REPLACEMENT CHARACTER}\nturn" in talk(b"my name is \xff\nand?\n", "agents.py:past").out


def test_chat_of_an_agent_that_does_not_exist_is_one_line(talk: Talk) -> None:
    said = talk("hello\n", "none.py:agent")
    assert (said.code, said.out, said.err) == (2, "", "holdfast: none.py:agent: there is no file none.py\n")


@pytest.mark.slow
@pytest.mark.parametrize("during", ["the prompt", "a turn"])
def test_ctrl_c_ends_a_chat_at_once(folder: Path, during: str) -> None:
    control, terminal = pty.openpty()
    words = [sys.executable, "-m", "holdfast", "chat", "agents.py:talk"]
    process = subprocess.Popen(
        words, cwd=folder, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True
    )
    os.close(terminal)
    try:
        wait_for(control, b"> ")
        if during == "a turn":
            os.write(control, b"first\n")
            wait_for(control, b"one ")
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        rest = wait_for(control, None)
        assert b"Traceback" not in rest
        assert b"Fatal" not in rest
    finally:
        process.kill()
        process.wait()
        os.close(control)
    with closing(sqlite3.connect(folder / "data" / "holdfast.db")) as database:
        stored = database.execute("SELECT message, outcome FROM turns").fetchall()
    assert stored == ([("first", "cancelled")] if during == "a turn" else [])


def wait_for(control: int, words: bytes | None) -> bytes:
    """What the terminal shows, up to ``words``; None is up to the end."""
    shown = b""
    while words is None or words not in shown:
        assert select.select([control], [], [], 30)[0], shown
        try:
            more = os.read(control, 4096)
        except OSError:  # how Linux tells that the other side has closed
            more = b""
        if not more:
            assert words is None, shown
            return shown
        shown += more
    return shown


# Doctor


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port: int = free.getsockname()[1]
    return port


@pytest.fixture
def well(folder: Path) -> Path:
    """Settings with which all is well."""
    return settings(folder, f"[server]\nport = {free_port()}\n[telemetry]\nmetrics_port = {free_port()}\n")


def settings(folder: Path, text: str) -> Path:
    file = folder / "holdfast.toml"
    file.write_text(text)
    return file


def test_doctor_finds_that_all_is_well(holdfast: Holdfast, well: Path) -> None:
    said = holdfast("doctor")
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert [line.split()[:2] for line in lines[:-1]] == [
        ["✓", name] for name in ("python", "settings", "store", "port", "metrics", "model", "files")
    ]
    assert lines[-1] == "all is well"


def ill(holdfast: Holdfast, name: str) -> str:
    """The one finding of this name, and its fix."""
    said = holdfast("doctor")
    assert (said.code, said.err) == (1, "")
    lines = said.out.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith(f"✗ {name}"))
    assert lines[at + 1].strip().startswith("fix:")
    assert lines[-1] == "1 to fix"
    return f"{lines[at]}\n{lines[at + 1]}"


def test_doctor_finds_a_port_that_is_taken(holdfast: Holdfast, well: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        settings(well.parent, f"[server]\nport = {port}\n[telemetry]\nmetrics_port = 0\n")
        assert f"{port}: address already in use" in (found := ill(holdfast, "port"))
        assert "set server.port to a free one" in found
        settings(well.parent, f"[server]\nport = 0\n[telemetry]\nmetrics_port = {port}\n")
        assert "set telemetry.metrics_port to a free one" in ill(holdfast, "metrics")


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("settings", "[server]\nprot = 1\n", "server.prot"),
        ("settings", "[server", "not valid TOML"),
        ("port", '[server]\nhost = "0.0.0.0"\nport = 0\n', "holdfast keys create"),
        ("port", '[server]\nhost = "203.0.113.1"\nport = 0\n', "correct server.host"),
        ("store", '[store]\nurl = "sqlite:agents.py"\n', "cannot use the database"),
        ("tls", '[server]\ntls_cert = "none"\ntls_key = "none"\n', "there is no file none"),
        ("files", '[tools]\nroot = "none"\n', "set tools.root"),
        ("agents", '[agent]\ntargets = ["none.py:agent"]\n', "there is no file none.py"),
        ("model", '[llm]\nmodel = "openai:gpt-5"\n', "OPENAI_API_KEY"),
        ("model", '[llm]\nmodel = "openai:gpt-5"\nbase_url = "http://127.0.0.1:1/v1"\n', "correct llm.base_url"),
        ("model", '[llm]\nmodel = "openai:gpt-5"\nbase_url = "http://127.0.0.1:99999/v1"\n', "correct llm.base_url"),
    ],
)
def test_doctor_finds_what_is_wrong_and_says_what_to_do(
    holdfast: Holdfast, well: Path, name: str, text: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sections = {} if name == "settings" else {"server.port": "0", "telemetry.metrics_port": "0"}
    for key, value in sections.items():
        monkeypatch.setenv("HOLDFAST_" + key.upper().replace(".", "__"), value)
    settings(well.parent, text)
    assert says in ill(holdfast, name)


def test_doctor_reaches_a_model_server_without_asking_it(holdfast: Holdfast, well: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as model:
        port = model.getsockname()[1]
        settings(
            well.parent,
            f'[server]\nport = 0\n[telemetry]\nmetrics_port = 0\n[llm]\nmodel = "openai:m"\n'
            f'base_url = "http://127.0.0.1:{port}/v1"\n',
        )
        said = holdfast("doctor")
        assert "(reachable, not called)" in said.out
        with model.accept()[0] as connection:
            assert connection.recv(1) == b""
