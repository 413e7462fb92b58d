"""
Pages that are written by hand, with tables of the code between their markers.

    <!-- Rendered by `make render`: NAME. -->
    ...
    <!-- From here on written by hand. -->
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from holdfast.telemetry.catalogue import LOG_EVENTS, SPANS, TRACE_EVENTS, Attribute, Span

DOCS = Path(__file__).resolve().parent
SHORT = {"{method} {route}": "request"}
END = "<!-- From here on written by hand. -->\n"


def tracing_page() -> str:
    """How turns are traced, with every span and every attribute."""
    kinds = [(f"`{span.name}`", span.kind, span.help) for span in SPANS]
    found: dict[Attribute, list[Span]] = {}
    for span in SPANS:
        for attribute in span.attributes:
            found.setdefault(attribute, []).append(span)
    attributes = [
        (f"`{one.name}`", one.type, _of(spans), _told(one)) for one, spans in sorted(found.items(), key=_by_name)
    ]
    return _filled(
        "tracing.md",
        spans=table(("Span", "Kind", "Lasts"), kinds),
        attributes=table(("Attribute", "Type", "Of", "Meaning"), attributes),
    )


def logs_page() -> str:
    """The lines of the log and the events of the trace file, with every field."""
    lines = [(f"`{one.name}`", one.level, one.help, _names(one.fields)) for one in LOG_EVENTS]
    events = [(f"`{one.name}`", one.help, _names(one.fields)) for one in TRACE_EVENTS]
    fields = [field for one in LOG_EVENTS for field in one.fields]
    fields += [field for one in TRACE_EVENTS for field in one.fields]
    return _filled(
        "logs.md",
        lines=table(("Line", "Level", "Written when", "Fields"), lines),
        events=table(("Event", "Written when", "Fields of `metadata`"), events),
        fields=table(("Field", "Type", "Meaning"), _explained(fields)),
    )


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    lines = [head, tuple("---" for _ in head), *(tuple(cell.replace("|", "\\|") for cell in row) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _filled(name: str, **tables: str) -> str:
    text = (DOCS / name).read_text("utf-8")
    for marker, rendered in tables.items():
        begin = f"<!-- Rendered by `make render`: {marker}. -->\n"
        before, begun, rest = text.partition(begin)
        _, ended, after = rest.partition(END)
        if not begun or not ended:
            raise SystemExit(f"docs/{name} must have the markers {begin.strip()} and {END.strip()}")
        text = f"{before}{begin}\n{rendered}\n{END}{after}"
    return text


def _by_name(found: tuple[Attribute, list[Span]]) -> str:
    return found[0].name


def _of(spans: list[Span]) -> str:
    return (
        "all" if len(spans) == len(SPANS) else ", ".join(SHORT.get(span.name, span.name.split()[0]) for span in spans)
    )


def _names(fields: Iterable[Attribute]) -> str:
    return ", ".join(f"`{field.name}`" for field in fields)


def _explained(fields: Iterable[Attribute]) -> Iterator[tuple[str, str, str]]:
    """Each name once, with whatever it means in different places."""
    by_name: dict[str, list[Attribute]] = {}
    for field in fields:
        by_name.setdefault(field.name, []).append(field)
    for name, same in sorted(by_name.items()):
        yield (
            f"`{name}`",
            " or ".join(dict.fromkeys(one.type for one in same)),
            " ".join(dict.fromkeys(_told(one) for one in same)),
        )


def _told(attribute: Attribute) -> str:
    return f"{attribute.help} *Content.*" if attribute.content else attribute.help
