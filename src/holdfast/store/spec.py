"""Where state is kept."""

from typing import Literal

from pydantic import BaseModel, Field, SecretStr, field_validator


class StoreSpec(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Sessions, turns and API keys. Section ``store``."""

    url: SecretStr = Field(
        SecretStr("sqlite:data/holdfast.db"), json_schema_extra={"default": "sqlite:data/holdfast.db"}
    )
    """`sqlite:PATH` keeps state in that file, whose folder is made if missing; `postgresql://user@host:5432/database`
    keeps it in PostgreSQL, for several servers at once, in the schema `holdfast` or that of `?search_path=`; `memory:`
    forgets at exit. It may hold a password, and is best given as `env:NAME` or `file:PATH` then."""

    durability: Literal["process", "power"] = "process"
    """What a commit to SQLite survives: the end of the process, however it ends, or a `power` cut as well, which makes
    each commit wait for the disk. PostgreSQL does as its own `synchronous_commit` says."""

    pool_size: int = Field(8, ge=1, le=1000)
    """Connections of one server to PostgreSQL, at most; one more hears what other servers did."""

    lease_s: float = Field(5.0, ge=0.5, le=3600)
    """Seconds that a server may give no sign of life before another one takes over its turns."""

    keep_turns_s: float = Field(86_400, ge=60, le=3_153_600_000)
    """Seconds after a turn's end until its model and tool calls, its events and its idempotency key are forgotten; what
    was asked and answered stays until its session is deleted."""

    @field_validator("url")
    @classmethod
    def _known(cls, url: SecretStr) -> SecretStr:
        scheme, colon, rest = url.get_secret_value().partition(":")
        known = {
            "memory": not rest,
            "sqlite": bool(rest),
            "postgresql": rest.startswith("//"),
            "postgres": rest.startswith("//"),
        }
        if not colon or not known.get(scheme):
            raise ValueError("must be memory:, or begin with sqlite:, postgresql:// or postgres://")
        return url

    @property
    def kind(self) -> str:
        """Which store it is, without where: ``sqlite``, ``postgresql``, ``postgres`` or ``memory``."""
        return self.url.get_secret_value().partition(":")[0]

    @property
    def shown(self) -> str:
        """The address without what may be secret: a database's host and name, but not who connects, or how."""
        url = self.url.get_secret_value()
        scheme, slashes, rest = url.partition("://")
        if self.kind in {"memory", "sqlite"} or not slashes:
            return url
        return f"{scheme}://{rest.partition('?')[0].rpartition('@')[2]}"
