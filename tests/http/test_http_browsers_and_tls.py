"""Pages of other origins, and HTTPS."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from holdfast.errors import Misconfigured
from holdfast.server.listen import check_tls
from holdfast.serving import ServerSpec

if TYPE_CHECKING:
    from tests.http.conftest import Api, Connect, ProblemOf, Serve, Server

PAGE, OTHER = "https://app.example", "https://evil.example"
ASKS = {"access-control-request-method": "POST", "access-control-request-headers": "content-type, x-api-key"}


@pytest.fixture(scope="module")
def friendly(serve: Serve) -> Server:
    return serve(server__cors_origins=(PAGE, "http://localhost:5173"))


def allowed(response: Any) -> str | None:
    origin: str | None = response.headers.get("access-control-allow-origin")
    return origin


def test_a_page_that_is_named_may_call(friendly: Server, connect: Connect) -> None:
    response = connect(friendly).post("hello", headers={"origin": PAGE})
    assert (response.status_code, allowed(response)) == (200, PAGE)
    exposed = "location, retry-after, traceparent, x-request-id, idempotent-replayed"
    assert response.headers["access-control-expose-headers"] == exposed
    assert "Origin" in response.headers["vary"]


def test_any_other_page_may_not_read_the_answer(friendly: Server, connect: Connect, api: Api) -> None:
    assert allowed(connect(friendly).post("hello", headers={"origin": OTHER})) is None
    assert allowed(api.post("hello", headers={"origin": PAGE})) is None  # this server names nobody


def test_a_browser_that_asks_first_is_answered(friendly: Server, connect: Connect, api: Api) -> None:
    ask = connect(friendly).http.options
    good = ask("/chat", headers={"origin": PAGE, **ASKS})
    assert (good.status_code, allowed(good)) == (200, PAGE)
    assert "POST" in good.headers["access-control-allow-methods"]
    assert good.headers["x-request-id"]
    bad = ask("/chat", headers={"origin": OTHER, **ASKS})
    assert (bad.status_code, allowed(bad)) == (400, None)
    assert api.http.options("/chat", headers={"origin": PAGE, **ASKS}).status_code == 405


def test_a_page_can_read_errors_too(
    serve: Serve,
    connect: Connect,
    problem_of: ProblemOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = serve(server__cors_origins=(PAGE,))
    api, origin = connect(server), {"origin": PAGE}

    def broken() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(server.hold.health, "report", broken)
    answers = [
        (api.get("/none", headers=origin), 404, "not_found"),
        (api.get("/chat", headers=origin), 405, "method_not_allowed"),
        (api.post("", headers=origin), 422, "unprocessable"),
        (api.post("hello", agent="fails", headers=origin), 500, "agent_failed"),
        (api.get("/health", headers=origin), 500, "error"),
    ]
    server.add_key("ada")
    answers.append((api.post("hello", headers=origin), 401, "unauthenticated"))
    server.store.down = True
    server.skip(2)
    answers.append((api.post("hello", headers=origin), 503, "store_unavailable"))
    for response, status, code in answers:
        problem_of(response, status, code)
        assert allowed(response) == PAGE


def test_every_page_may_call_where_the_setting_says_so(serve: Serve, connect: Connect) -> None:
    api = connect(serve(server__cors_origins=("*",)))
    assert allowed(api.get("/health", headers={"origin": OTHER})) == "*"
    assert "access-control-allow-credentials" not in api.get("/health", headers={"origin": OTHER}).headers


@pytest.mark.parametrize(
    "origin", ["app.example", "https://app.example/", "https://App.example", "https://*.example", ""]
)
def test_an_origin_that_no_browser_sends_is_refused(origin: str) -> None:
    with pytest.raises(ValueError, match="is no origin"):
        ServerSpec(cors_origins=(origin,))


@pytest.mark.parametrize("proxy", ["proxy.example", "10.0.0.1/8", "10.0.0.0/33", "*", ""])
def test_a_proxy_that_is_no_address_is_refused(proxy: str) -> None:
    with pytest.raises(ValueError, match="is neither an address nor a network"):
        ServerSpec(trusted_proxies=(proxy,))


# HTTPS


class Pem:
    """A certificate for 127.0.0.1 that signs itself, and its key."""

    def __init__(self, folder: Path, *, passphrase: bytes = b"") -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        began = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
        made = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(began)
            .not_valid_after(began + dt.timedelta(days=36_500))
            .add_extension(names, critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        secret = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
        self.cert, self.key = folder / "cert.pem", folder / "key.pem"
        self.cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        self.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret))


def test_two_settings_make_it_https(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    pem = Pem(tmp_path)
    server = serve(server__tls_cert=str(pem.cert), server__tls_key=str(pem.key))
    assert server.url.startswith("https://127.0.0.1:")
    api = connect(server, verify=ssl.create_default_context(cafile=pem.cert))
    assert api.ask("hello")["reply"] == "hello"
    with api.stream("hello") as events:
        assert [event.name for event in events] == ["turn.started", "turn.ended"]


def test_plain_http_gets_nothing_out_of_https(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    pem = Pem(tmp_path)
    server = serve(server__tls_cert=str(pem.cert), server__tls_key=str(pem.key))
    server.url = server.url.replace("https", "http")
    with pytest.raises(Exception, match=r"disconnected|reset|closed"):
        connect(server).get("/health/live")


def test_a_certificate_that_cannot_be_used_is_told_in_one_line(tmp_path: Path) -> None:
    pem, other = Pem(tmp_path), tmp_path / "other"
    other.mkdir()
    locked = Pem(other, passphrase=b"secret")
    nothing = tmp_path / "none.pem"
    text = tmp_path / "text.pem"
    text.write_text("hello")
    for cert, key, said in [
        (nothing, pem.key, f"there is no file {nothing}"),
        (pem.cert, nothing, f"there is no file {nothing}"),
        (text, pem.key, "PEM"),
        (pem.cert, text, "PEM"),
        (pem.cert, locked.key, "passphrase"),
        (locked.cert, pem.key, "MISMATCH"),
        (tmp_path, pem.key, "there is no file"),
    ]:
        with pytest.raises(Misconfigured) as raised:
            check_tls(ServerSpec(tls_cert=cert, tls_key=key))
        assert said.lower() in raised.value.detail.lower()
        assert "\n" not in raised.value.detail
