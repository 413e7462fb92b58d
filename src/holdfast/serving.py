"""What the HTTP server is told: kept apart from the server, so that settings need not know HTTP."""

import base64
import binascii
import re
from ipaddress import ip_network
from pathlib import Path

from pydantic import BaseModel, Field, SecretStr, field_validator, model_validator

_WEBHOOK_HOST = re.compile(r"([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[1-9][0-9]{0,4})?", re.IGNORECASE)
_SECRET_PREFIX = "whsec_"  # noqa: S105 - what secrets begin with, and no secret
_SECRET_BYTES = range(24, 65)
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\s*A-Z]+")


class ServerSpec(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """The HTTP server. Section ``server``."""

    host: str = "127.0.0.1"
    """Address to listen on. Anything but a loopback address needs at least one API key to have been created."""

    port: int = Field(8080, ge=0, le=65_535)
    """TCP port to listen on; 0 takes any free one."""

    max_body_bytes: int = Field(1_048_576, ge=1_024, le=1_073_741_824)
    """Largest request body in bytes; a larger one is answered 413 and not kept."""

    body_timeout_s: float = Field(15.0, gt=0, le=3_600)
    """Seconds a request's head may take to arrive, and its body after that; later than that the answer is 408."""

    session_wait_s: float = Field(30.0, ge=0, le=3_600)
    """Seconds a message waits for an earlier turn of its session; after that the answer is 409. 0 never waits."""

    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may call the API from a browser, such as `https://app.example`; `*` is every page's, and
    empty allows none."""

    trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks whose `X-Forwarded-For` is believed; empty believes nobody."""

    tls_cert: Path | None = None
    """PEM file with the certificate chain; set together with `tls_key` to serve HTTPS."""

    tls_key: Path | None = None
    """PEM file with the private key of `tls_cert`."""

    webhook_hosts: tuple[str, ...] = ()
    """Hosts that may be told of the end of a turn, such as `hooks.example`, or `hooks.example:8443` where the port is
    not the usual one; empty tells nobody, and a turn that names a webhook is refused."""

    webhook_secret: SecretStr | None = None
    """What webhooks are signed with, best given as `env:NAME` or `file:PATH`: `whsec_` and 24 to 64 random bytes in
    Base64. Needed where `webhook_hosts` names any."""

    @field_validator("webhook_hosts")
    @classmethod
    def _hosts_are_names_or_addresses(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not _WEBHOOK_HOST.fullmatch(host):
                raise ValueError(f"{host} is no host: write a name or an address, with :port if need be")
        return hosts

    @field_validator("webhook_secret")
    @classmethod
    def _secret_can_sign(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None and len(_key_of(secret)) not in _SECRET_BYTES:
            raise ValueError("webhook_secret must be whsec_ and the Base64 of 24 to 64 random bytes")
        return secret

    @field_validator("cors_origins")
    @classmethod
    def _origins_are_what_browsers_send(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin} is no origin: write scheme://host or scheme://host:port, in lower case")
        return origins

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies_are_addresses(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in proxies:
            try:
                ip_network(proxy)
            except ValueError as error:
                raise ValueError(f"{proxy} is neither an address nor a network such as 10.0.0.0/8") from error
        return proxies

    @model_validator(mode="after")
    def _tls_is_both_or_neither(self) -> "ServerSpec":
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together: set both, or neither")
        return self

    @model_validator(mode="after")
    def _webhooks_are_signed(self) -> "ServerSpec":
        if self.webhook_hosts and self.webhook_secret is None:
            raise ValueError("webhook_hosts need webhook_secret, which webhooks are signed with")
        return self


def webhook_key(spec: ServerSpec) -> bytes:
    """What webhooks are signed with; empty where there is none."""
    return b"" if spec.webhook_secret is None else _key_of(spec.webhook_secret)


def _key_of(secret: SecretStr) -> bytes:
    try:
        return base64.b64decode(secret.get_secret_value().removeprefix(_SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return b""
