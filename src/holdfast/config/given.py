"""What the sources give, key by key, and every problem with it in one line."""

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import get_args

from pydantic import BaseModel, ValidationError

from holdfast.config.files import FILE_VARIABLE, why
from holdfast.config.keys import LIST, PREFIX, TABLES, Key, Section, shown
from holdfast.errors import Misconfigured

# A Kubernetes Service called holdfast puts such variables into every pod beside it.
_OF_KUBERNETES = r"_SERVICE_(HOST|PORT(_\w+)?)=|_PORT_\d+_[A-Z]+_(PROTO|PORT|ADDR)=|=(tcp|udp|sctp)://"
_NOT_OURS = re.compile(f"^{FILE_VARIABLE}=|{_OF_KUBERNETES}")


class Given:
    """
    What the sources say. Each is taken in turn, the later one wins, and then every section is checked.

    Args:
        environ: Where variables and ``env:NAME`` secrets are looked up.
        sections: All there are.

    Attributes:
        values: What was given, by the key's name.
        sources: Who gave it.
        problems: One line for each thing that is wrong.
    """

    def __init__(self, environ: Mapping[str, str], sections: Sequence[Section]) -> None:
        self._environ = environ
        self._sections = {section.name: section for section in sections}
        self._keys = {key.name: key for section in sections for key in section.keys}
        self.values: dict[str, object] = {}
        self.sources: dict[str, str] = {}
        self.problems: list[str] = []

    def take(self, source: str, key: Key, value: object) -> None:
        """One value, in place of what an earlier source gave."""
        self.values[key.name] = None if value == "" and key.optional else value
        self.sources[key.name] = source

    def take_file(self, source: str, content: Mapping[str, object]) -> None:
        """What a file holds."""
        for name, values in content.items():
            if name in self._sections:
                self._take_section(source, self._sections[name], values)
            elif isinstance(values, Mapping):
                self._unknown(f"{source}: unknown section {name}", get_close_matches(name, self._sections, 1))
            else:
                near = self._called(name) or get_close_matches(name, self._keys, 1)
                self._unknown(f"{source}: unknown key {name}", near)

    def _take_section(self, source: str, section: Section, values: object) -> None:
        keys = {key.attribute: key for key in section.keys}
        if isinstance(values, Mapping):
            for name, value in values.items():
                if name in keys:
                    self.take(source, keys[name], value)
                else:
                    near = [keys[key].name for key in get_close_matches(str(name), keys, 1)] or self._called(str(name))
                    self._unknown(f"{source}: unknown key {section.name}.{name}", near)
        elif values is not None:  # YAML reads a section whose keys are all commented out as null
            must = f"{source}: {section.name} must be a table with keys of its own"
            self.problems.append(must + _got(values, section.keys))

    def take_environ(self) -> None:
        """Every variable of ours."""
        known = {key.variable: key for key in self._keys.values()}
        for other in self._keys.values():
            if other.also and other.also in self._environ:
                self.take(other.also, other, self._environ[other.also])
        for variable, text in self._environ.items():
            if key := known.get(variable):
                self.take(variable, key, text)
            elif variable.startswith(PREFIX) and not _NOT_OURS.search(f"{variable}={text}"):
                inside = [name for name in known if variable.startswith(f"{name}__")]
                self._unknown(f"unknown variable {variable}", inside or get_close_matches(variable, known, 1))

    def check(self, section: Section, spec: type[BaseModel]) -> BaseModel:
        """The section's spec; where it is wrong, its default, and the reasons among the problems."""
        keys = {key.attribute: key for key in section.keys}
        values = {}
        for name, key in keys.items():
            if key.name in self.values:
                try:
                    value = values[name] = self._usable(key)
                    if key.keys and isinstance(value, Mapping):
                        values[name] = self._tables(key, value, get_args(spec.model_fields[name].annotation)[1])
                except Misconfigured as wrong:
                    self.problems.append(wrong.detail)
        try:
            return spec.model_validate(values)
        except ValidationError as wrong:
            for error in wrong.errors(include_url=False):
                reason = error.get("ctx", {}).get("error")
                if error["loc"]:
                    self._wrong(keys[str(error["loc"][0])], error["type"], reason)
                else:
                    self._do_not_fit(section, str(reason))
            return spec()

    def _tables(self, key: Key, given: Mapping[object, object], spec: type[BaseModel]) -> dict[str, BaseModel]:
        """The named tables, each checked as a section is."""
        source, tables = self.sources[key.name], {}
        for name, values in given.items():
            if isinstance(name, str):
                self._take_section(source, key.table(name), values)
                tables[name] = self.check(key.table(name), spec)
            else:  # YAML reads more than text there
                self.problems.append(f"{source}: {key.name}: a name must be text, got {shown(name)}; put it in quotes")
        return tables

    def _usable(self, key: Key) -> object:
        value = self.values[key.name]
        if isinstance(value, str) and self.sources[key.name] == key.variable and key.type in {LIST, TABLES}:
            value = self.values[key.name] = self._parsed(key, value)
        if value is None and key.keys:
            return {}  # as an empty section
        if isinstance(value, bool) and key.type in {"a whole number", "a number"}:
            return str(value)  # pydantic would take true for 1
        if not key.secret or not isinstance(value, str) or not value.startswith(("env:", "file:")):
            return value
        scheme, _, name = value.partition(":")
        where = f"{self.sources[key.name]}: {key.name} is {value}, but"
        if scheme == "env":
            if self._environ.get(name):
                return self._environ[name]
            raise Misconfigured(f"{where} the variable {name} is not set; set it, or remove {key.name}")
        try:
            if secret := Path(name).read_text("utf-8").rstrip("\r\n"):
                return secret
        except (OSError, UnicodeDecodeError) as wrong:
            raise Misconfigured(f"{where} the file {name} cannot be read: {why(wrong)}") from wrong
        raise Misconfigured(f"{where} the file {name} is empty")

    def _parsed(self, key: Key, text: str) -> object:
        """A list or tables, from the variable that holds them."""
        if key.type == LIST and not text.lstrip().startswith("["):
            return [item.strip() for item in text.split(",") if item.strip()]
        try:
            return json.loads(text.strip() or "{}", object_pairs_hook=_once)
        except ValueError as wrong:
            where = f"{key.variable}: {key.name} is not valid JSON: {why(wrong)}"
            raise Misconfigured(where + _got(text, [key])) from wrong

    def _wrong(self, key: Key, error: str, reason: Exception | None) -> None:
        where = f"{self.sources[key.name]}: {key.name}"
        about_the_type = error.endswith(("_type", "_parsing", "_parsing_size", "_from_float"))
        must_be = key.type if about_the_type else key.allowed or key.type
        told = f"{where}: {reason}" if reason else f"{where} must be {must_be}"
        self.problems.append(told + _got(self.values[key.name], [key]))

    def _do_not_fit(self, section: Section, reason: str) -> None:
        given = {key.attribute: key for key in section.keys if key.name in self.values}
        named = {name: key for name, key in given.items() if re.search(rf"\b{name}\b", reason)} or given
        sources = ", ".join(dict.fromkeys(self.sources[key.name] for key in named.values()))
        got = ", ".join(f"{n} = {shown(self.values[key.name])}" for n, key in named.items() if not key.secret)
        self.problems.append(f"{sources}: {section.name}: {reason}; got {got}")

    def _called(self, name: str) -> list[str]:
        """The keys that are called so, in whatever section."""
        return [key for key in self._keys if key.endswith(f".{name}")]

    def _unknown(self, what: str, near: Sequence[str]) -> None:
        advice = f"did you mean {near[0]}?" if near else "`holdfast config schema` lists everything there is"
        self.problems.append(f"{what}; {advice}")


def _got(value: object, keys: Collection[Key]) -> str:
    return "; its value is not shown" if any(key.secret for key in keys) else f", got {shown(value)}"


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Refuses a name that is there twice, as the files' readers do."""
    for name, times in Counter(name for name, _ in pairs).items():
        if times > 1:
            raise ValueError(f"{name} is there twice")
    return dict(pairs)
