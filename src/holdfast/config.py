"""
Settings: the parts' own specs, collected, and where each value came from.

::

    defaults ─▶ holdfast.toml or .yaml ─▶ HOLDFAST_SECTION__KEY ─▶ flags        later wins

``load`` reads the sources once and hands back frozen settings, or names everything that is wrong with them at once,
one line for each problem. Nothing here is global: the environment is handed in, and the parts are handed their specs.
"""

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from holdfast.agents.spec import AgentSpec, LLMSpec
from holdfast.errors import Misconfigured
from holdfast.guard.spec import GuardSpec
from holdfast.lifecycle.spec import ShutdownSpec
from holdfast.serving import ServerSpec
from holdfast.store.spec import StoreSpec
from holdfast.telemetry.spec import TelemetrySpec
from holdfast.tools.spec import ToolsSpec

__all__ = ["Key", "Loaded", "Section", "Settings", "describe", "json_schema", "load"]

FILES = ("holdfast.toml", "holdfast.yaml", "holdfast.yml")
FILE_VARIABLE = "HOLDFAST_CONFIG"
PREFIX = "HOLDFAST_"
MOST_SHOWN = 120

# A Kubernetes Service called holdfast puts such variables into every pod beside it.
_OF_KUBERNETES = r"_SERVICE_(HOST|PORT(_\w+)?)=|_PORT_\d+_[A-Z]+_(PROTO|PORT|ADDR)=|=(tcp|udp|sctp)://"
_NOT_OURS = re.compile(f"^{FILE_VARIABLE}=|{_OF_KUBERNETES}")


class Settings(BaseModel, frozen=True, extra="forbid"):
    """Everything that can be set, one section for each part."""

    server: ServerSpec = ServerSpec()
    llm: LLMSpec = LLMSpec()
    agent: AgentSpec = AgentSpec()
    resilience: GuardSpec = GuardSpec()
    store: StoreSpec = StoreSpec()
    telemetry: TelemetrySpec = TelemetrySpec()
    shutdown: ShutdownSpec = ShutdownSpec()
    tools: ToolsSpec = ToolsSpec()


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """
    What there is to know about one setting.

    Attributes:
        name: ``section.key``.
        type: In words that follow "must be": ``a whole number``.
        allowed: Range, choices or pattern, in the same words; empty where any value of the type will do.
        default: As JSON has it.
        doc: The sentence under the attribute.
        variable: Environment variable that sets it.
        flag: Name of the option where a command offers one.
        secret: Whether its value is never shown.
        optional: Whether it may be none; an empty text means none.
    """

    name: str
    type: str
    allowed: str
    default: object
    doc: str
    variable: str
    flag: str
    secret: bool
    optional: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One part's settings."""

    name: str
    doc: str
    keys: tuple[Key, ...]


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
    file = path or _named(environ) or _found()
    given = _Given(environ)
    if file is not None:
        given.take_file(str(file), _read(file))
    given.take_environ()
    for name, value in flags.items():
        if value is not None:
            given.take(_keys()[name].flag, name, value)
    sections = {section.name: given.check(section) for section in describe()}
    if given.problems:
        raise Misconfigured("\n".join(dict.fromkeys(line.replace("\n", "\\n") for line in given.problems)))
    origins = dict.fromkeys(_keys(), "default") | given.sources
    return Loaded(settings=Settings.model_validate(sections), file=file, origins=MappingProxyType(origins))


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the settings file, for editors and checkers."""
    schema = Settings.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Holdfast settings"}


@cache
def describe() -> tuple[Section, ...]:
    """Every section and key in reading order: what documentation and ``holdfast config show`` are rendered from."""
    sections = []
    for section, spec in _specs().items():
        schema = spec.model_json_schema()
        keys = (_key(f"{section}.{name}", about) for name, about in schema["properties"].items())
        doc = schema["description"].replace(f" Section ``{section}``.", "")
        sections.append(Section(name=section, doc=doc, keys=tuple(keys)))
    return tuple(sections)


def _specs() -> dict[str, type[BaseModel]]:
    return {name: type(field.default) for name, field in Settings.model_fields.items()}


@cache
def _keys() -> dict[str, Key]:
    return {key.name: key for section in describe() for key in section.keys}


def _key(name: str, about: Mapping[str, Any]) -> Key:
    shape: dict[str, Any] = {**about, **about.get("anyOf", [{}])[0]}
    types = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "array": "a list of texts"}
    formats = {"path": "a path", "password": "secret text"}
    default = about["default"]
    return Key(
        name=name,
        type=formats.get(shape.get("format", ""), types.get(shape["type"], "text")),
        allowed=_allowed(shape, default),
        default=default,
        doc=" ".join(about["description"].split()),
        variable=PREFIX + name.upper().replace(".", "__"),
        flag="--" + name.partition(".")[2].replace("_", "-"),
        secret=shape.get("format") == "password",
        optional="anyOf" in about,
    )


def _allowed(shape: Mapping[str, Any], default: object) -> str:
    if "enum" in shape:
        return "one of " + ", ".join(shape["enum"])
    if "pattern" in shape:
        return f"text that matches {shape['pattern']}, such as {default}"
    if "minimum" in shape and "maximum" in shape:
        return f"between {shape['minimum']} and {shape['maximum']}"
    bounds = {
        "minimum": "at least",
        "exclusiveMinimum": "greater than",
        "maximum": "at most",
        "exclusiveMaximum": "less than",
    }
    return " and ".join(f"{words} {shape[bound]}" for bound, words in bounds.items() if bound in shape)


class _Given:
    """What the sources say: the value in force for each key, who set it, and everything that is wrong with them."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.values: dict[str, object] = {}
        self.sources: dict[str, str] = {}
        self.problems: list[str] = []

    def take(self, source: str, name: str, value: object) -> None:
        self.values[name] = None if value == "" and _keys()[name].optional else value
        self.sources[name] = source

    def take_file(self, source: str, content: Mapping[str, object]) -> None:
        for section, values in content.items():
            if section not in _specs():
                what, known = ("section", _specs()) if isinstance(values, Mapping) else ("key", _keys())
                self._unknown(f"{source}: unknown {what} {section}", section, known)
            elif isinstance(values, Mapping):
                for key, value in values.items():
                    if (name := f"{section}.{key}") in _keys():
                        self.take(source, name, value)
                    else:
                        self._unknown(f"{source}: unknown key {name}", name, _keys())
            elif values is not None:  # YAML reads a section whose keys are all commented out as null
                self.problems.append(f"{source}: {section} must be a section with keys of its own, got a value")

    def take_environ(self) -> None:
        known = {key.variable: key for key in _keys().values()}
        for variable, text in self.environ.items():
            if key := known.get(variable):
                self.take(variable, key.name, _list(text) if key.type == "a list of texts" else text)
            elif variable.startswith(PREFIX) and not _NOT_OURS.search(f"{variable}={text}"):
                self._unknown(f"unknown variable {variable}", variable, known)

    def check(self, section: Section) -> BaseModel:
        """The section's spec; where it is wrong, its default, and the reasons among the problems."""
        spec = _specs()[section.name]
        values = {}
        for key in section.keys:
            if key.name in self.values:
                try:
                    values[key.name.partition(".")[2]] = self._usable(key)
                except Misconfigured as wrong:
                    self.problems.append(wrong.detail)
        try:
            return spec.model_validate(values)
        except ValidationError as wrong:
            for error in wrong.errors(include_url=False):
                reason = error.get("ctx", {}).get("error")
                if error["loc"]:
                    self._wrong(_keys()[f"{section.name}.{error['loc'][0]}"], error["type"], reason)
                else:
                    self._do_not_fit(section, str(reason))
            return spec()

    def _usable(self, key: Key) -> object:
        value = self.values[key.name]
        if isinstance(value, bool) and key.type in {"a whole number", "a number"}:
            return str(value)  # pydantic would take true for 1
        if not key.secret or not isinstance(value, str) or not value.startswith(("env:", "file:")):
            return value
        scheme, _, name = value.partition(":")
        where = f"{self.sources[key.name]}: {key.name} is {value}, but"
        if scheme == "env":
            if self.environ.get(name):
                return self.environ[name]
            raise Misconfigured(f"{where} the variable {name} is not set; set it, or remove {key.name}")
        try:
            if secret := Path(name).read_text("utf-8").rstrip("\r\n"):
                return secret
        except (OSError, UnicodeDecodeError) as wrong:
            raise Misconfigured(f"{where} the file {name} cannot be read: {_why(wrong)}") from wrong
        raise Misconfigured(f"{where} the file {name} is empty")

    def _wrong(self, key: Key, error: str, reason: Exception | None) -> None:
        where = f"{self.sources[key.name]}: {key.name}"
        got = "; its value is not shown" if key.secret else f", got {_shown(self.values[key.name])}"
        about_the_type = error.endswith(("_type", "_parsing", "_parsing_size", "_from_float"))
        must_be = key.type if about_the_type else key.allowed or key.type
        self.problems.append(f"{where}: {reason}{got}" if reason else f"{where} must be {must_be}{got}")

    def _do_not_fit(self, section: Section, reason: str) -> None:
        given = {key.name.partition(".")[2]: key for key in section.keys if key.name in self.values}
        named = {name: key for name, key in given.items() if re.search(rf"\b{name}\b", reason)} or given
        sources = ", ".join(dict.fromkeys(self.sources[key.name] for key in named.values()))
        got = ", ".join(f"{n} = {_shown(self.values[key.name])}" for n, key in named.items() if not key.secret)
        self.problems.append(f"{sources}: {section.name}: {reason}; got {got}")

    def _unknown(self, what: str, name: str, known: Iterable[str]) -> None:
        near = [key for key in known if key.endswith(f".{name}")] or get_close_matches(name, known, 1)
        advice = f"did you mean {near[0]}?" if near else "`holdfast config schema` lists everything there is"
        self.problems.append(f"{what}; {advice}")


def _named(environ: Mapping[str, str]) -> Path | None:
    name = environ.get(FILE_VARIABLE)
    if name and not Path(name).exists():
        raise Misconfigured(f"{FILE_VARIABLE}: there is no file {name}; correct the variable, or unset it")
    return Path(name) if name else None


def _found() -> Path | None:
    found = [name for name in FILES if Path(name).exists()]
    if len(found) > 1:
        raise Misconfigured(f"{' and '.join(found)} are both here; keep one, or name one with --config")
    return Path(found[0]) if found else None


def _read(file: Path) -> Mapping[str, object]:
    try:
        text = file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as wrong:
        raise Misconfigured(f"{file}: cannot be read: {_why(wrong)}; name another with --config") from wrong
    try:
        if file.suffix == ".toml":
            return tomllib.loads(text)
        if file.suffix in {".yaml", ".yml"}:
            content = yaml.load(text, _Yaml)  # noqa: S506 - a SafeLoader, made stricter below
            if isinstance(content, dict | None):
                return {str(key): value for key, value in (content or {}).items()}
            raise Misconfigured(f"{file}: must be a mapping of sections, got {_shown(content)}")
    except tomllib.TOMLDecodeError as wrong:
        reason, _, place = str(wrong).rstrip(")").partition(" (at ")
        line = place.partition(",")[0]
        raise Misconfigured(f"{file}, {line}: is not valid TOML: {reason}") from wrong
    except (yaml.YAMLError, ValueError) as wrong:  # ValueError: a date that does not exist
        mark = getattr(wrong, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        raise Misconfigured(f"{file}{place}: is not valid YAML: {_why(wrong)}") from wrong
    raise Misconfigured(f"{file}: must end in .toml, .yaml or .yml")


class _Yaml(yaml.SafeLoader):
    """Refuses a key that is there twice; YAML would silently take the later one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        seen: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value} is there twice", problem_mark=key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def _why(wrong: Exception) -> str:
    if isinstance(wrong, UnicodeDecodeError):
        return "it is not UTF-8 text"
    return str(getattr(wrong, "strerror", None) or getattr(wrong, "problem", None) or " ".join(str(wrong).split()))


def _list(text: str) -> object:
    if not text.lstrip().startswith("["):
        return [item.strip() for item in text.split(",") if item.strip()]
    try:
        return json.loads(text)
    except ValueError:
        return text


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool | None) else str(value)
    return text if len(text) <= MOST_SHOWN else text[:MOST_SHOWN] + "…"
