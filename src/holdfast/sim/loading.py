"""
Where a script comes from: a YAML file, a Python function or list, or JSON data. What is wrong is said in one line.

    rules.yaml               a list of rules, or a mapping with the key ``rules``
    rules.py:name            a function ``(request, rng) -> Reply | None``, or a list of rules
    rules.py                 the same; the name is ``script``
    package.module:name      the same, from an importable module
"""

import difflib
import importlib
import importlib.util
import random
import re
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import msgspec
import yaml

from holdfast.errors import Misconfigured
from holdfast.sim.dialogue import Call, Request, Usage
from holdfast.sim.faults import EVERY_FAULT
from holdfast.sim.latency import Latency
from holdfast.sim.rules import Reply, Rule, Script, When

Brain = Callable[[Request, random.Random], Reply | Awaitable[Reply | None] | None]
"""A script written in Python. None leaves the request to the demo model. Draw chance only from the second argument."""

Source = Brain | Script | str | Path | list[Any] | dict[str, Any] | None
"""Anything a script can be loaded from; None is no script."""

T = TypeVar("T")

USUAL_NAME = "script"
_SHAPES: dict[str, type[msgspec.Struct]] = {"rules": Rule, "when": When, "call": Call, "usage": Usage}
_FAULTS: dict[str, type[msgspec.Struct]] = {str(fault.__struct_config__.tag): fault for fault in EVERY_FAULT}


def load(source: Source) -> tuple[Script | Brain, str]:
    """
    The script, and what to call it in records.

    Raises:
        Misconfigured: naming the file, the place in it, and the nearest key or name that exists.
    """
    if source is None:
        return Script(), ""
    if isinstance(source, str | Path):
        return _from_file(str(source)), str(source)
    return _from_object(source, "the script"), getattr(source, "__qualname__", "")


def read_script(data: object, where: str) -> Script:
    """
    A script from JSON data: a list of rules, or a mapping with the key ``rules``.

    Raises:
        Misconfigured: as ``load``.
    """
    if isinstance(data, list | tuple):
        data = {"rules": data}
    if isinstance(data, dict) and isinstance(data.get("rules"), list | tuple):
        data = {**data, "rules": [_spelled_out(rule) for rule in data["rules"]]}
    return _converted(data, Script, where)


def read_rule(data: object, where: str) -> Rule:
    """
    One rule from JSON data.

    Raises:
        Misconfigured: as ``load``.
    """
    return _converted(_spelled_out(data), Rule, where)


def _spelled_out(rule: object) -> object:
    """``fault: overloaded`` is short for ``fault: {kind: overloaded}``."""
    if isinstance(rule, Rule):
        return msgspec.to_builtins(rule, enc_hook=str)
    if isinstance(rule, dict) and isinstance(rule.get("fault"), str):
        return {**rule, "fault": {"kind": rule["fault"]}}
    return rule


def _converted(data: object, shape: type[T], where: str) -> T:
    try:
        return msgspec.convert(data, shape, dec_hook=lambda _, value: Latency.parse(value), strict=True)
    except msgspec.ValidationError as wrong:
        raise Misconfigured(_explained(str(wrong), where, data, shape)) from wrong


def _explained(message: str, where: str, data: object, shape: type[object]) -> str:
    """``rules.yaml: rules[2].when: there is no key 'text' here; did you mean 'text_contains'?``."""
    said, _, path = message.partition(" - at `$")
    place = path.rstrip("`").lstrip(".")
    if found := re.fullmatch(r"Object contains unknown field `(.*)`", said):
        said = f"there is no key {found[1]!r} here" + _nearest(found[1], _keys_at(place, data, shape))
    elif place.endswith("fault.kind") and (found := re.fullmatch(r"Invalid value '(.*)'", said)):
        said = f"there is no fault {found[1]!r}" + _nearest(found[1], _FAULTS)
    return ": ".join(part for part in (where, place, said) if part)


def _keys_at(place: str, data: Any, shape: type[Any]) -> list[str]:
    """The keys that exist at this place of the data."""
    found: type[Any] = shape
    for step in re.findall(r"\w+", place):
        data = data[int(step)] if isinstance(data, list | tuple) else data[step]
        found = _FAULTS[data["kind"]] if step == "fault" else _SHAPES.get(step, found)
    return ["kind"] * (found in EVERY_FAULT) + list(found.__struct_fields__)


def _nearest(wrong: str, known: Iterable[str]) -> str:
    names = list(known)
    within = [name for name in names if wrong and (wrong in name or name in wrong)]
    close = difflib.get_close_matches(wrong, names, 1, 0.6) or within
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(names)}"


def _from_file(source: str) -> Script | Brain:
    place, colon, name = source.rpartition(":")
    if not colon or place.lower().endswith((".yaml", ".yml")):
        place, name = source, USUAL_NAME
    if place.endswith(".py"):
        return _named(_run(Path(place)), name or USUAL_NAME, source)
    if colon and "/" not in place:
        try:
            module = importlib.import_module(place)
        except Exception as wrong:
            raise Misconfigured(f"{source}: cannot import {place}: {_short(wrong)}") from wrong
        return _named(module, name, source)
    try:
        data = yaml.safe_load(Path(source).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as wrong:
        raise Misconfigured(f"{source}: cannot be read: {_short(wrong)}") from wrong
    except yaml.YAMLError as wrong:
        mark = getattr(wrong, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        raise Misconfigured(f"{source}: {line}not YAML: {getattr(wrong, 'problem', None) or _short(wrong)}") from wrong
    return read_script(data, source)


def _run(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"holdfast_sim_script_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise Misconfigured(f"{path}: cannot be read: there is no such file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as wrong:
        raise Misconfigured(f"{path}: {type(wrong).__name__}: {_short(wrong)}") from wrong
    return module


def _named(module: ModuleType, name: str, source: str) -> Script | Brain:
    if not hasattr(module, name):
        public = [known for known in vars(module) if not known.startswith("_")]
        raise Misconfigured(f"{source}: there is no {name!r}{_nearest(name, public)}")
    return _from_object(getattr(module, name), source)


def _from_object(found: Any, source: str) -> Script | Brain:
    if isinstance(found, Script):
        return found
    if callable(found):
        brain: Brain = found
        return brain
    return read_script(found, source)


def _short(wrong: BaseException) -> str:
    return (getattr(wrong, "strerror", None) or str(wrong)).strip().split("\n")[0]
