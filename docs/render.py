"""
Write the documents that list code, from the code.

``python docs/render.py`` writes them; ``--check`` writes nothing, names every one that is stale, and exits with 1.
A rendered document is one function that returns its text, and one entry in ``RENDERED``.
"""

import argparse
import re
import sys
import types
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from error_advice import TO_DO
from handwritten import logs_page, table, tracing_page
from public_api import api

from holdfast import config, errors, events
from holdfast.config.files import FILE_VARIABLE, FILES
from holdfast.telemetry.catalogue import METRICS, Label

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src"
RENDERED_BY = "<!-- Rendered from the code by `make render`: change the code, not this file. -->"


def configuration() -> str:
    """Every setting, from the parts' own specs."""
    parts = [CONFIGURATION]
    for section in config.describe():
        keys = [row for key in section.keys for row in (key, *key.keys)]
        rows = [(f"`{key.name}`", _range(key), _default(key), key.doc, _variables(key)) for key in keys]
        keys_table = table(("Key", "Type", "Default", "Meaning", "Variable"), rows)
        parts.append(f"## {section.name}\n\n{_markdown(section.doc)}\n\n{keys_table}")
    return _document("Configuration", *parts)


def errors_page() -> str:
    """Every error, and what each reader of it does."""
    everyone = [cls for cls in errors.every_error() if cls.__module__.startswith(errors.__name__)]
    if wrong := {cls.__name__ for cls in everyone} ^ set(TO_DO):
        raise SystemExit(f"docs/error_advice.py: TO_DO must name exactly the errors there are; look at {sorted(wrong)}")
    rows = [
        (f"[`{cls.code}`](#{cls.code})", _status(cls), "yes" if cls.retryable else "no", cls.public) for cls in everyone
    ]
    parts = [ERRORS, _drawing(errors), table(("Code", "Status", "Retry", "What every caller is told"), rows)]
    for cls in everyone:
        to_do = "".join(f"- *{reader}:* {text}\n" for reader, text in TO_DO[cls.__name__].items())
        parts.append(f"## {cls.code}\n\n`{cls.__name__}`: {_doc(cls)}\n\n{to_do}")
    return _document("Errors", *parts)


def events_page() -> str:
    """Every event, with its fields."""
    parts = [EVENTS, _drawing(events)]
    structs: dict[str, type[msgspec.Struct]] = {event.name: event for event in events.EVERY_EVENT}
    structs["usage"] = events.Usage
    for name, struct in structs.items():
        parts.append(f"## {name}\n\n{_doc(struct)}\n\n{_fields(struct)}")
    return _document("Events", *parts)


def metrics_page() -> str:
    """Every metric."""
    rows = [(f"`{one.name}`", one.kind, ", ".join(map(_label, one.labels)), one.help) for one in METRICS]
    edges = [(f"`{one.name}`", ", ".join(f"{edge:g}" for edge in one.buckets)) for one in METRICS if one.buckets]
    old = [(f"`{name}`", f"`{expr}`") for one in METRICS for name, expr in one.rules()]
    return _document(
        "Metrics",
        METRICS_SAY,
        table(("Metric", "Type", "Labels", "Meaning"), rows),
        f"## Buckets\n\n{table(('Histogram', 'Upper edges'), edges)}",
        f"## Names of other systems\n\n{OLD_NAMES_SAY}\n{table(('Recorded as', 'From'), old)}",
    )


def _label(label: Label) -> str:
    return f"`{label.name}` ({', '.join(label.values) or f'at most {label.bound}'})"


RENDERED: dict[str, Callable[[], str]] = {
    "docs/configuration.md": configuration,
    "docs/errors.md": errors_page,
    "docs/events.md": events_page,
    "docs/metrics.md": metrics_page,
    "docs/tracing.md": tracing_page,
    "docs/logs.md": logs_page,
    "api.txt": lambda: api(SOURCE),
}


def main(arguments: list[str]) -> int:
    """Write what is stale, or with ``--check`` name it; the exit code."""
    parser = argparse.ArgumentParser(description="Write the documents that list code, from the code.")
    parser.add_argument("--check", action="store_true", help="write nothing; name what is stale and exit with 1")
    check = parser.parse_args(arguments).check
    stale = False
    for name, render in RENDERED.items():
        path, text = ROOT / name, render()
        if path.exists() and path.read_text("utf-8") == text:
            continue
        if check:
            stale = True
            print(f"{name} is stale: run `make render`")
        else:
            path.write_text(text, "utf-8")
            print(f"{name} written")
    return 1 if stale else 0


# The words

METRICS_SAY = """\
On the metrics port and at `/metrics` of the API, in the Prometheus text format, or in OpenMetrics where the scraper
asks for it. Durations are in seconds. `telemetry.metrics_namespace` goes in front of each name. `process_*` and
`python_gc_*` come on top.

Label values are closed sets, and no session, user or turn ever becomes a label. A label whose values are not listed
takes them from what is served and configured, and from names that programs make; from the first one beyond its bound
on, they are told as `_other` and counted in `agent_metric_label_overflow_total`. Series exist as soon as the values of
their labels are known, so that `rate()` sees the first error.

A *step* is a model call that was answered: of attempts that failed and were made again, or made elsewhere, the one that
succeeded. An attempt or a tool call that a policy refused is counted, with the status `rejected`, but has no duration.
A *session* is active while one of its turns runs or waits for an earlier one. Where a trace is kept, durations carry
its id as an exemplar, in OpenMetrics. The state of a component is found out anew for each page.

Each process counts for itself and is scraped by itself: `PROMETHEUS_MULTIPROC_DIR` has to be unset.

No label tells a credential: what is kept for one model with several of them shares a label, and of several circuits the
worst state is shown. `model:credential` stands for the circuits of all credentials. A circuit that somebody forced open
is `open`, and one that somebody disabled is `closed`. The `limiter` is `global`, `user` or `tool`. In the mode
`observe` nothing is refused, and so nothing is counted as a rejection.
"""


OLD_NAMES_SAY = """\
What systems that Holdfast takes the place of call the same things remains as recording rules, which cost the process
nothing.
"""

CONFIGURATION = f"""\
Every setting has a default that is safe in production. Four sources may change it; the later one wins:

1. the default,
2. the file `{FILES[0]}` (or `{FILES[1]}`, `{FILES[2]}`) in the working directory, or the one
   that `--config` or the variable `{FILE_VARIABLE}` names,
3. the environment variable in the table's last column, or of two the first one that is set,
4. the command's own option, where it has one.

```toml
[server]
port = 8081
cors_origins = ["https://app.example"]

[resilience]
turn_s = 90

[resilience.tools.web_search]
timeout_s = 10
per_s = 2
```

`NAME` in a key stands for a name of your choice, such as `web_search` above. In the environment a list is JSON or
separated by commas, and named tables are JSON: `HOLDFAST_RESILIENCE__TOOLS='{{"web_search": {{"per_s": 2}}}}'`. A later
source replaces the value of an earlier one as a whole, a list or named tables too. An empty text stands for none where
a setting may be none. Paths are relative to the working directory.

A secret is best not written down: `env:NAME` takes it from a variable, `file:PATH` from a file, whose last line break
is dropped. Secrets are never shown, not even in an error.

```console
$ holdfast config check     # whether the settings are right; if not, every reason, and exit code 2
$ holdfast config show      # every setting in force, and where it came from
$ holdfast config schema    # JSON Schema, for an editor
```

Whatever is wrong keeps the server from starting, with one line for each problem:

```text
holdfast.toml: unknown key server.prot; did you mean server.port?
HOLDFAST_SERVER__PORT: server.port must be between 0 and 65535, got "99999"
holdfast.toml: resilience.tools.web_search.per_s must be between 1 and 1000000, got 0
```
"""

ERRORS = """\
An error has a stable code, a text that is the same for every caller, and a detail for the log. Over HTTP it is
`application/problem+json` with the code, the status and a `trace_id`, under which the log has the detail.
*Retry* says whether the same request may succeed later; a `Retry-After` header says when, where anybody can know.
"""

EVENTS = """\
Everything a turn does is one of these facts. The stream of a turn, the logs and the metrics are all made from them.
Fields marked *content* hold what people or models wrote: only the caller's own stream carries them.

The stream of a turn that does not succeed has one more at its end: `error`, whose data is the [problem](errors.md).
"""


# Tables and drawings


def _document(title: str, *parts: str) -> str:
    return "\n".join([f"{RENDERED_BY}\n\n# {title}\n", *parts])


def _drawing(module: types.ModuleType) -> str:
    after = (module.__doc__ or "").partition("::\n")[2].splitlines()
    drawn = takewhile(lambda line: not line or line.startswith("    "), after)
    return "```text\n" + "\n".join(line.removeprefix("    ") for line in drawn).strip("\n") + "\n```\n"


def _doc(thing: type) -> str:
    return _markdown(" ".join((thing.__doc__ or "").partition("Attributes:")[0].split()))


def _attributes(thing: type) -> dict[str, str]:
    return dict(re.findall(r"^ +(\w+): (.+)$", (thing.__doc__ or "").partition("Attributes:")[2], re.MULTILINE))


def _markdown(text: str) -> str:
    return text.replace("``", "`")


def _range(key: config.Key) -> str:
    if key.allowed.startswith("one of "):
        return " or ".join(f"`{choice}`" for choice in key.allowed.removeprefix("one of ").split(", "))
    if found := re.match(r"text that matches (\S+), such as", key.allowed):
        return f"text matching `{found[1]}`"
    words = key.type.removeprefix("a ") + (f", {key.allowed}," if key.allowed else "")
    return words + " or none" if key.optional else words.removesuffix(",")


def _default(key: config.Key) -> str:
    values = key.default if isinstance(key.default, list) else [key.default]
    words = {"None": "none", "": "empty", "{}": "empty"}
    return ", ".join(words.get(str(value), f"`{value}`") for value in values) or "empty"


def _variables(key: config.Key) -> str:
    return f"`{key.variable}` or `{key.also}`" if key.also else f"`{key.variable}`"


def _status(cls: type[errors.HoldfastError]) -> str:
    return "exit code 2" if cls is errors.Misconfigured else str(cls.status)


def _fields(struct: type[msgspec.Struct]) -> str:
    hints, told = get_type_hints(struct), _attributes(struct)
    rows = []
    for field in msgspec.structs.fields(struct):
        note = "*content*" if field.name in events.CONTENT else told.get(field.name, "")
        rows.append((f"`{field.name}`", _words(hints[field.name]), note))
    return table(("Field", "Type", "Note"), rows)


def _words(hint: Any) -> str:
    plain = {str: "text", int: "whole number", float: "number", bool: "true or false", msgspec.Raw: "JSON"}
    if get_origin(hint) is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(hint))
    if get_origin(hint) is list:
        return f"list of {_words(get_args(hint)[0])}s"
    if get_origin(hint) in {Union, types.UnionType}:
        return " or ".join("none" if part is type(None) else _words(part) for part in get_args(hint))
    return "[usage](#usage)" if hint is events.Usage else plain[hint]


# The public names, from the source


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
