"""Which state is shared with other processes, and where."""

from pydantic import BaseModel, Field, SecretStr, field_validator

from holdfast.coord.base import NAMESPACE, SCHEMES, TIMEOUT_S


class CoordSpec(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Limits, probes and breaker moves that several server processes share. Section ``coord``."""

    url: SecretStr = Field(SecretStr("local:"), json_schema_extra={"default": "local:"})
    """`local:` shares with nobody; `redis://`, `rediss://` or `valkey://` shares through Redis or Valkey, and
    `postgresql://` through PostgreSQL. It may hold a password, and is best given as `env:NAME` or `file:PATH` then."""

    timeout_s: float = Field(TIMEOUT_S, gt=0, le=10)
    """Seconds to wait for an answer; without one, each process goes on with its part of the limits."""

    namespace: str = Field(NAMESPACE, pattern=r"^[a-z0-9_-]{1,32}$")
    """Processes with the same one share state; others that use the same server do not."""

    @field_validator("url")
    @classmethod
    def _known(cls, url: SecretStr) -> SecretStr:
        text = url.get_secret_value()
        if text != "local:" and not text.startswith(SCHEMES[1:]):
            raise ValueError(f"must be {SCHEMES[0]} or begin with {', '.join(SCHEMES[1:])}")
        return url
