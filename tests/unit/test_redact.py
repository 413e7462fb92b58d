"""Secrets stay out of what is told."""

import json

import pytest

from holdfast.clock import Clock
from holdfast.server.auth import make_key
from holdfast.telemetry import Redactor, secrets_in

REST = "Ab1-" * 6
WORDS = "A1b2" * 8
KEYS = [
    f"sk-ant-api03-{REST}",
    f"sk-proj-{REST}",
    f"sk-{WORDS}",
    f"hf_{WORDS}",
    make_key("ada", (), Clock()).text,
    "AKIA" + "A1B2" * 4,
    "ASIA" + "A1B2" * 4,
    "AIza" + WORDS + "-_x",
    f"ghp_{WORDS}",
    f"gho_{WORDS}",
    f"github_pat_{WORDS}",
    f"glpat-{WORDS}",
    f"xoxb-{WORDS}",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.c2lnbmF0dXJl",
]


@pytest.mark.parametrize("key", KEYS)
def test_whatever_looks_like_a_key_is_taken_out_and_nothing_else(key: str) -> None:
    redact = Redactor()
    assert redact(f"before {key} after") == "before [redacted] after"
    assert redact(f'{{"key":"{key}"}}') == '{"key":"[redacted]"}'
    assert redact(f"{key},{key}\n{key}") == "[redacted],[redacted]\n[redacted]"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Authorization: Bearer abcdefgh.ijkl", "Authorization: Bearer [redacted]"),
        ("authorization: basic dXNlcjpwYXNz", "authorization: basic [redacted]"),
        ("redis://:hunter22@cache:6379/0", "redis://[redacted]@cache:6379/0"),
        ("postgresql://ada:hunter22@db/x", "postgresql://[redacted]@db/x"),
        ("-----BEGIN RSA PRIVATE KEY-----\\nMIIE\\n-----END RSA PRIVATE KEY-----", "[redacted]"),
        ('{"pem":"-----BEGIN PRIVATE KEY-----\\nMIIE+/=","x":1}', '{"pem":"[redacted]","x":1}'),
    ],
)
def test_what_goes_with_a_key_stays(text: str, told: str) -> None:
    assert Redactor()(text) == told


@pytest.mark.parametrize(
    "text",
    [
        '{"ts":"2026-01-31T12:00:00.000Z","level":"info","event":"agent_start","trace_id":"0af7651916cd43dd8448eb211c80319c"}',
        "https://example.com/a:b@c",
        "http://127.0.0.1:8080/chat",
        "the task-list of the sk-team, ghosts and eyJokes",
        "model:credential openai:gpt-6@deadbeef",
    ],
)
def test_everything_else_is_left_alone(text: str) -> None:
    assert Redactor(["", "short", "1234567"])(text) == text


def test_configured_secrets_are_taken_out_however_they_are_written() -> None:
    secret = 'pass"word\\with é and\nmore'
    redact = Redactor([secret, "open sesame", "open sesame and more"])
    assert redact(f"x {secret} y") == "x [redacted] y"
    assert redact(json.dumps({"a": secret})) == '{"a": "[redacted]"}'
    assert redact(json.dumps({"a": secret}, ensure_ascii=False)) == '{"a": "[redacted]"}'
    assert redact("open sesame and more") == "[redacted]"


def test_the_environments_secrets_are_known_by_their_names() -> None:
    environ = {
        "OPENAI_API_KEY": "one",
        "MY_APIKEY": "two",
        "db_password": "three",
        "GITHUB_TOKEN": "four",
        "CLIENT_SECRET": "five",
        "OTEL_EXPORTER_OTLP_HEADERS": "six",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "seven",
        "PATH": "/bin",
        "TOKENIZERS_PARALLELISM": "false",
        "HOME": "home",
    }
    assert secrets_in(environ) == ["one", "two", "three", "four", "five", "six", "seven"]
