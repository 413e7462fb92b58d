"""The command line: in this process where only words and exit codes matter, as a process where signals do."""

from __future__ import annotations

import json
import logging
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest
import structlog

from holdfast.cli import main

PATIENCE_S = 30.0
AGENTS = '''
import asyncio
import time
from pathlib import Path


async def talk(turn):
    """Says "one ", and ends with "two" once there is a file called go."""
    turn.say("one ")
    while not Path("go").exists():
        await asyncio.sleep(0.01)
    turn.say("two")
    return "one two"


async def past(turn):
    return " | ".join(past.message for past in turn.past)


async def stuck(turn):
    turn.say("one ")
    await asyncio.to_thread(time.sleep, 60)
    return "never"


async def busy(turn):
    """Says "one ", and holds up the loop once there is a file called go."""
    turn.say("one ")
    while not Path("go").exists():
        await asyncio.sleep(0.01)
    while True:
        pass


async def stubborn(turn):
    turn.say("one ")
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass
'''


class Said(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class Process:
    """A command that runs as a process of its own."""

    def __init__(self, folder: Path, *words: str) -> None:
        command = [sys.executable, "-m", "holdfast", *words]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
            # A shell that runs the tests in the background has Ctrl-C ignored, and so would they have it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no thread holds a lock
        )
        self.out: list[str] = []
        self.err: list[str] = []
        self._more = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=(stream, lines))
            for stream, lines in ((self._process.stdout, self.out), (self._process.stderr, self.err))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: Any, lines: list[str]) -> None:
        for line in stream:
            with self._more:
                lines.append(line.rstrip("\n"))
                self._more.notify_all()
        with self._more:
            self._more.notify_all()

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The first match of ``pattern`` in what the process says, once it says it."""

        def found() -> re.Match[str] | None:
            return re.search(pattern, "\n".join(self.out + self.err))

        with self._more:
            assert self._more.wait_for(found, PATIENCE_S), (self.out, self.err)
            match = found()
            assert match is not None
            return match

    @property
    def url(self) -> str:
        return self.wait_for(r"API +(https?://\S+)")[1]

    def ended_by(self, number: signal.Signals) -> bool:
        """Whether it has ended; while it has not, send it one more signal."""
        self._process.send_signal(number)
        return self._process.poll() is not None

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def ended(self) -> int:
        """The exit code, once there is one."""
        try:
            code = self._process.wait(PATIENCE_S)
        finally:
            self.close()
        return code

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for reader in self._readers:
            reader.join()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def is_quiet(self) -> None:
        """Nothing on standard error but log lines, and no cry of a dying interpreter among them."""
        lines = [json.loads(line) for line in self.err]
        assert [line for line in lines if line["level"] == "error"] == []


def until(done: Callable[[], bool]) -> None:
    """Wait across the border of a process, where nothing can tell us."""
    for _ in range(int(PATIENCE_S / 0.02)):
        if done():
            return
        time.sleep(0.02)  # noqa: TID251 - another process decides when
    raise AssertionError("it did not come about")


Holdfast = Callable[..., Said]
Start = Callable[..., Process]
Until = Callable[[Callable[[], bool]], None]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with some agents in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "agents.py").write_text(AGENTS)
    return tmp_path


@pytest.fixture
def holdfast(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Holdfast]:
    """Run a command here: its words in, its exit code and words out."""
    handlers, level = list(logging.getLogger().handlers), logging.getLogger().level
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["holdfast", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return Said(int(ended.value.code or 0), said.out, said.err)

    yield run
    structlog.reset_defaults()
    logging.getLogger().handlers[:] = handlers
    logging.getLogger().setLevel(level)


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Start a command as a process in the working directory."""
    with ExitStack() as running:

        def start(*words: str) -> Process:
            process = Process(folder, *words)
            running.callback(process.close)
            return process

        yield start


@pytest.fixture
def serve(start: Start) -> Start:
    """Start a server on free ports."""

    def serve(*words: str) -> Process:
        process = start("serve", "--port", "0", "--metrics-port", "0", *words)
        process.wait_for("Ctrl-C stops")
        return process

    return serve


@pytest.fixture(name="until")
def _until() -> Until:
    return until


@pytest.fixture
def http() -> Iterator[httpx2.Client]:
    with httpx2.Client(timeout=PATIENCE_S, trust_env=False) as client:
        yield client
