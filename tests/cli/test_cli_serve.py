"""What keeps ``holdfast serve`` from starting: exit code 2, and one line that says what to do."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Holdfast

FREE = ("--port", "0", "--metrics-port", "0")


@pytest.fixture
def taken() -> Iterator[str]:
    """A port that somebody listens on."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        yield str(listener.getsockname()[1])


def refused(holdfast: Holdfast, *words: str) -> str:
    """The one line."""
    said = holdfast("serve", *words)
    assert (said.code, said.out) == (2, "")
    (line,) = said.err.splitlines()
    assert line.startswith("holdfast: ")
    return line


def test_a_port_that_is_taken(holdfast: Holdfast, taken: str) -> None:
    line = refused(holdfast, "--port", taken, "--metrics-port", "0")
    assert f"cannot listen on 127.0.0.1:{taken}: address already in use" in line
    assert "set server.port to a free one" in line


def test_a_metrics_port_that_is_taken(holdfast: Holdfast, taken: str) -> None:
    assert "set telemetry.metrics_port to a free one" in refused(holdfast, "--port", "0", "--metrics-port", taken)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
def test_an_address_that_others_can_reach_without_any_key(holdfast: Holdfast, host: str) -> None:
    line = refused(holdfast, *FREE, "--host", host)
    assert "which other machines can reach, and there are no API keys" in line
    assert "holdfast keys create" in line


def test_a_metrics_address_that_others_can_reach_without_any_key(
    holdfast: Holdfast, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = str(free.getsockname()[1])
    monkeypatch.setenv("HOLDFAST_TELEMETRY__METRICS_HOST", "0.0.0.0")
    (folder / "holdfast.toml").write_text("[shutdown]\nlame_duck_s = 20\n")  # nobody is waited for
    assert "telemetry.metrics_host is 0.0.0.0" in refused(holdfast, "--port", "0", "--metrics-port", port)


@pytest.mark.parametrize("host", ["203.0.113.1", "no such host", "a..b", "x" * 64, "127.0.0.1:9", "fe80::zz"])
def test_an_address_that_is_not_here(holdfast: Holdfast, host: str) -> None:
    assert "correct server.host" in refused(holdfast, *FREE, "--host", host)


@pytest.mark.parametrize("port", ["abc", "-1", "65536", "1.5", ""])
def test_a_port_that_is_none(holdfast: Holdfast, port: str) -> None:
    assert "port" in refused(holdfast, "--port", port)


def test_a_setting_that_does_not_exist(holdfast: Holdfast, folder: Path) -> None:
    (folder / "holdfast.toml").write_text("[server]\nprot = 8080\n")
    assert "server.prot" in refused(holdfast)


def test_every_wrong_setting_has_a_line_of_its_own(holdfast: Holdfast, folder: Path) -> None:
    (folder / "holdfast.toml").write_text(
        '[server]\nprot = 1\nport = -1\ncors_origins = ["x"]\ntrusted_proxies = ["y"]\n'
    )
    said = holdfast("serve")
    assert said.code == 2
    assert len(said.err.splitlines()) == 4


@pytest.mark.parametrize("words", [["--nope"], ["--config", "none.toml"], ["none.py:agent"], ["agents.py:none"]])
def test_words_that_mean_nothing(holdfast: Holdfast, words: list[str]) -> None:
    refused(holdfast, *words)


def test_a_certificate_that_cannot_be_used(holdfast: Holdfast, folder: Path) -> None:
    (folder / "cert.pem").write_text("hello")
    (folder / "holdfast.toml").write_text('[server]\ntls_cert = "cert.pem"\ntls_key = "key.pem"\n')
    assert "there is no file key.pem" in refused(holdfast, *FREE)


def test_a_store_that_cannot_be_used(holdfast: Holdfast, folder: Path) -> None:
    (folder / "holdfast.toml").write_text('[store]\nurl = "sqlite:agents.py"\n')
    assert "cannot use the database" in refused(holdfast, *FREE)
