"""What the HTTP server is told: kept apart from the server, so that settings need not know HTTP."""

from pathlib import Path

from pydantic import BaseModel, Field, model_validator


class ServerSpec(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """The HTTP server. Section ``server``."""

    host: str = "127.0.0.1"
    """Address to listen on. Anything but a loopback address needs at least one API key to have been created."""

    port: int = Field(8080, ge=0, le=65_535)
    """TCP port to listen on; 0 takes any free one."""

    max_body_bytes: int = Field(1_048_576, ge=1_024, le=1_073_741_824)
    """Largest request body in bytes; a larger one is answered 413 and not read to its end."""

    body_timeout_s: float = Field(15.0, gt=0, le=3_600)
    """Seconds a request body may take to arrive; after that the answer is 408."""

    session_wait_s: float = Field(30.0, ge=0, le=3_600)
    """Seconds a message waits for an earlier turn of its session; after that the answer is 409. 0 never waits."""

    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may call the API from a browser, such as `https://app.example`; empty allows none."""

    trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks whose `X-Forwarded-For` is believed; empty believes nobody."""

    tls_cert: Path | None = None
    """PEM file with the certificate chain; set together with `tls_key` to serve HTTPS."""

    tls_key: Path | None = None
    """PEM file with the private key of `tls_cert`."""

    @model_validator(mode="after")
    def _tls_is_both_or_neither(self) -> "ServerSpec":
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together: set both, or neither")
        return self
