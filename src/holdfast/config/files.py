"""The settings file: which one it is, and what is in it."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from holdfast.config.keys import shown
from holdfast.errors import Misconfigured

FILES = ("holdfast.toml", "holdfast.yaml", "holdfast.yml")
FILE_VARIABLE = "HOLDFAST_CONFIG"


def find(environ: Mapping[str, str]) -> Path | None:
    """
    The file that ``HOLDFAST_CONFIG`` names, or else the one in the working directory; None where there is none.

    Raises:
        Misconfigured: the named one is missing, or there are two.
    """
    if name := environ.get(FILE_VARIABLE):
        if not Path(name).exists():
            raise Misconfigured(f"{FILE_VARIABLE}: there is no file {name}; correct the variable, or unset it")
        return Path(name)
    found = [name for name in FILES if Path(name).exists()]
    if len(found) > 1:
        raise Misconfigured(f"{' and '.join(found)} are both here; keep one, or name one with --config")
    return Path(found[0]) if found else None


def read(file: Path) -> Mapping[str, object]:
    """
    What is in the file, section by section; nothing of it is checked but its form.

    Raises:
        Misconfigured: it cannot be read, or is neither TOML nor YAML.
    """
    try:
        text = file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as wrong:
        raise Misconfigured(f"{file}: cannot be read: {why(wrong)}; name another with --config") from wrong
    try:
        if file.suffix == ".toml":
            return tomllib.loads(text)
        if file.suffix in {".yaml", ".yml"}:
            content = yaml.load(text, _Yaml)  # noqa: S506 - a SafeLoader, made stricter below
            if isinstance(content, dict | None):
                return {str(key): value for key, value in (content or {}).items()}
            raise Misconfigured(f"{file}: must be a mapping of sections, got {shown(content)}")
    except tomllib.TOMLDecodeError as wrong:
        reason, _, place = str(wrong).rstrip(")").partition(" (at ")
        line = place.partition(",")[0]
        raise Misconfigured(f"{file}, {line}: is not valid TOML: {reason}") from wrong
    except (yaml.YAMLError, ValueError) as wrong:  # ValueError: a date that does not exist
        mark = getattr(wrong, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        raise Misconfigured(f"{file}{place}: is not valid YAML: {why(wrong)}") from wrong
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


def why(wrong: Exception) -> str:
    """The reason in one line."""
    if isinstance(wrong, UnicodeDecodeError):
        return "it is not UTF-8 text"
    return str(getattr(wrong, "strerror", None) or getattr(wrong, "problem", None) or " ".join(str(wrong).split()))
