"""
Settings: the parts' own specs, collected, and where each value came from.

::

    defaults ─▶ holdfast.toml or .yaml ─▶ HOLDFAST_SECTION__KEY ─▶ flags        later wins

``load`` reads the sources once and hands back frozen settings, or names everything that is wrong with them at once,
one line for each problem. Nothing here is global: the environment is handed in, and the parts are handed their specs.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, SecretStr

from holdfast.agents.spec import AgentSpec, LLMSpec
from holdfast.budget.spec import BudgetSpec
from holdfast.config.files import find, read
from holdfast.config.given import Given
from holdfast.config.keys import Key, Section, section_of
from holdfast.coord.spec import CoordSpec
from holdfast.errors import Misconfigured
from holdfast.guard.spec import GuardSpec
from holdfast.lifecycle.spec import HealthSpec, ShutdownSpec
from holdfast.monitor import MonitorSpec
from holdfast.serving import ServerSpec
from holdfast.store.spec import StoreSpec
from holdfast.telemetry.spec import TelemetrySpec
from holdfast.tools.spec import ToolsSpec

__all__ = ["Key", "Loaded", "Section", "Settings", "describe", "json_schema", "load"]


class Settings(BaseModel, frozen=True, extra="forbid"):
    """Everything that can be set, one section for each part."""

    server: ServerSpec = ServerSpec()
    llm: LLMSpec = LLMSpec()
    agent: AgentSpec = AgentSpec()
    resilience: GuardSpec = GuardSpec()
    budget: BudgetSpec = BudgetSpec()
    monitor: MonitorSpec = MonitorSpec()
    store: StoreSpec = StoreSpec()
    coord: CoordSpec = CoordSpec()
    telemetry: TelemetrySpec = TelemetrySpec()
    health: HealthSpec = HealthSpec()
    shutdown: ShutdownSpec = ShutdownSpec()
    tools: ToolsSpec = ToolsSpec()

    def secrets(self) -> list[str]:
        """The secrets among the settings; an address on this machine alone is none."""
        sections = (section for _, section in self)
        held = [value.get_secret_value() for each in sections for _, value in each if isinstance(value, SecretStr)]
        return [text for text in held if not text.startswith(("sqlite:", "memory:", "local:"))]

    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that are the same wherever the same is set, whatever the secrets are."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """
    The settings in force.

    Attributes:
        settings: Checked and frozen.
        file: The file that was read; None where there is none.
        origins: For every key, where its value came from.
    """

    settings: Settings
    file: Path | None
    origins: Mapping[str, str]

    def origin(self, key: str) -> str:
        """``default``, the file's name, the variable's name or the flag that set ``section.key``."""
        return self.origins[key]


def load(
    path: Path | None = None, *, environ: Mapping[str, str], flags: Mapping[str, object] = MappingProxyType({})
) -> Loaded:
    """
    Read every source and check the result.

    Args:
        path: File to read; None takes the one that ``HOLDFAST_CONFIG`` names, or else the one in the working directory.
        environ: Where variables and ``env:NAME`` secrets are looked up.
        flags: ``section.key`` to value, as given on the command line; None stands for a flag that was not given.

    Raises:
        Misconfigured: with one line for each problem.
    """
    file = path or find(environ)
    given = Given(environ, describe())
    if file is not None:
        given.take_file(str(file), read(file))
    given.take_environ()
    for name, value in flags.items():
        if value is not None:
            given.take(_keys()[name].flag, _keys()[name], value)
    sections = {section.name: given.check(section, _specs()[section.name]) for section in describe()}
    if given.problems:
        raise Misconfigured("\n".join(dict.fromkeys(line.replace("\n", "\\n") for line in given.problems)))
    origins = {name: given.sources.get(name, "default") for name in _keys()}
    return Loaded(settings=Settings.model_validate(sections), file=file, origins=MappingProxyType(origins))


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the settings file, for editors and checkers."""
    schema = Settings.model_json_schema()
    for section in schema["properties"].values():
        del section["default"]  # Its keys tell theirs; here a secret's would be masked.
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Holdfast settings"}


@cache
def describe() -> tuple[Section, ...]:
    """Every section and key in reading order: what documentation and ``holdfast config show`` are rendered from."""
    return tuple(section_of(name, spec) for name, spec in _specs().items())


def _specs() -> dict[str, type[BaseModel]]:
    return {name: type(field.default) for name, field in Settings.model_fields.items()}


@cache
def _keys() -> dict[str, Key]:
    return {key.name: key for section in describe() for key in section.keys}
