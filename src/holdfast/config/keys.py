"""What there is to know about a setting, read from the JSON Schema of its part's spec."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel

PREFIX = "HOLDFAST_"
LIST, TABLES = "a list of texts", "a table of named tables"
MOST_SHOWN = 120
ALSO = "x-also"
"""In a field's ``json_schema_extra``: a variable of another system that sets it too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """
    What there is to know about one setting.

    Attributes:
        name: ``section.key``; for one in a named table ``section.key.NAME.key``.
        type: In words that follow "must be": ``a whole number``.
        allowed: Range, choices or pattern, in the same words; empty where any value of the type will do.
        default: As JSON has it.
        doc: The sentence under the attribute.
        variable: Environment variable that sets it.
        flag: Name of the option where a command offers one.
        secret: Whether its value is never shown.
        optional: Whether it may be none; an empty text means none.
        keys: What each of its named tables may hold; empty where it holds none.
        also: Another system's variable, which sets it where ``variable`` does not; empty where there is none.
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
    keys: tuple["Key", ...] = ()
    also: str = ""

    @property
    def attribute(self) -> str:
        """What its spec calls it."""
        return self.name.rpartition(".")[2]

    def table(self, name: str) -> "Section":
        """Its table ``name``, whose keys have their full names."""
        plain = re.fullmatch(r"[\w-]+", name)
        whole = f"{self.name}.{name if plain else json.dumps(name, ensure_ascii=False)}"
        keys = (replace(key, name=f"{whole}.{key.attribute}") for key in self.keys)
        return Section(name=whole, doc=self.doc, keys=tuple(keys))


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One part's settings."""

    name: str
    doc: str
    keys: tuple[Key, ...]


def section_of(name: str, spec: type[BaseModel]) -> Section:
    """What ``spec`` holds, as the section ``name``."""
    schema = spec.model_json_schema()
    keys = (_key(f"{name}.{key}", about, schema) for key, about in schema["properties"].items())
    return Section(name=name, doc=schema["description"].replace(f" Section ``{name}``.", ""), keys=tuple(keys))


def _key(name: str, about: Mapping[str, Any], schema: Mapping[str, Any]) -> Key:
    shape: dict[str, Any] = {**about, **about.get("anyOf", [{}])[0]}
    types = {"integer": "a whole number", "number": "a number", "boolean": "true or false"}
    types |= {"array": LIST, "object": TABLES}
    formats = {"path": "a path", "password": "secret text"}
    held = shape["additionalProperties"]["$ref"].rpartition("/")[2] if shape["type"] == "object" else None
    inside = schema["$defs"][held]["properties"] if held else {}
    keys = tuple(_key(f"{name}.NAME.{key}", of, schema) for key, of in inside.items())
    section, key = name.split(".")[:2]
    return Key(
        name=name,
        type=formats.get(shape.get("format", ""), types.get(shape["type"], "text")),
        allowed=_allowed(shape, about["default"]),
        default=about["default"],
        doc=" ".join(about["description"].split()),
        variable=f"{PREFIX}{section}__{key}".upper(),
        flag="--" + key.replace("_", "-"),
        secret=shape.get("format") == "password" or any(key.secret for key in keys),
        optional="anyOf" in about,
        keys=keys,
        also=about.get(ALSO, ""),
    )


def _allowed(shape: Mapping[str, Any], default: object) -> str:
    if "enum" in shape:
        return "one of " + ", ".join(shape["enum"])
    if "pattern" in shape:
        example = [*shape.get("examples", ()), default][0]
        return f"text that matches {shape['pattern']}, such as {example}"
    if "minimum" in shape and "maximum" in shape:
        return f"between {shape['minimum']} and {shape['maximum']}"
    bounds = {
        "minimum": "at least",
        "exclusiveMinimum": "greater than",
        "maximum": "at most",
        "exclusiveMaximum": "less than",
    }
    return " and ".join(f"{words} {shape[bound]}" for bound, words in bounds.items() if bound in shape)


def shown(value: object) -> str:
    """A value as a problem tells it: JSON's way for the simple ones, and cut if it is long."""
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool | None) else str(value)
    return text if len(text) <= MOST_SHOWN else text[:MOST_SHOWN] + "…"
