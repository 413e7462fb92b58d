"""``holdfast serve``: agents over HTTP."""

import os
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from holdfast._version import __version__
from holdfast.cli.run import ConfigPath, Targets, run, settings
from holdfast.config import Loaded
from holdfast.runtime import Holdfast
from holdfast.server import run_server
from holdfast.server.process import Listening
from holdfast.telemetry import configure_logs, secrets_in

QUESTION = "What is 17*23, and which files are here?"


def serve(
    agents: Targets = None,
    config: ConfigPath = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="TCP port to listen on; 0 takes any free one.")] = None,
    metrics_port: Annotated[int | None, typer.Option(help="TCP port for /metrics alone; 0 is none.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
) -> None:
    """Serve agents over HTTP: the built-in assistant, and the ones you name."""
    loaded = settings(
        config,
        os.environ,
        agent__targets=tuple(agents) if agents else None,
        server__host=host,
        server__port=port,
        telemetry__metrics_port=metrics_port,
        telemetry__log_level=log_level,
    )
    configure_logs(loaded.settings.telemetry, secrets=(*loaded.settings.secrets(), *secrets_in(os.environ)))
    hold = Holdfast(loaded.settings)

    def started(listening: Listening) -> None:
        hold.traces.serve_whole_process()
        _say_hello(hold, loaded, listening)

    run(run_server(hold, started))


def _say_hello(hold: Holdfast, loaded: Loaded, listening: Listening) -> None:
    console = Console(emoji=False, highlight=False, soft_wrap=True)
    url = listening.url
    agents = ", ".join(f"{name} (default)" if name == hold.default_agent else name for name in hold.agents)
    model = hold.model
    if model == "demo":
        model += ": offline and rule-based; set ANTHROPIC_API_KEY or OPENAI_API_KEY for a real one"
    access = "API keys needed" if listening.closed else "open to this machine alone; holdfast keys create closes it"
    rows = {
        "API": f"{url}  ({access})",
        "metrics": listening.metrics_url or f"{url}/metrics",
        "agents": agents,
        "model": model,
        "store": loaded.settings.store.shown,
        "traces": _where_traces_go(hold),
        "settings": str(loaded.file or "defaults (no holdfast.toml here)"),
    }
    console.print(f"[bold]Holdfast {__version__}[/bold]")
    for name, value in rows.items():
        console.print(f"  {name:<9} {escape(value)}")
    key = " -H 'authorization: Bearer KEY'" if listening.closed else ""
    ask = f"curl -s {url}/chat{key} -H 'content-type: application/json'"
    console.print("[bold]Try[/bold]")
    console.print(escape(f'  {ask} -d \'{{"session_id":"s","message":"{QUESTION}"}}\''))
    console.print(escape(f"  {ask} -H 'accept: text/event-stream' -N -d '{{\"message\":\"What time is it?\"}}'"))
    console.print(escape(f"  curl -s {url}/health/ready"))
    console.print("Ctrl-C stops.")


def _where_traces_go(hold: Holdfast) -> str:
    if not hold.settings.telemetry.enabled:
        return "off"
    spans = hold.traces.url or "OTEL_EXPORTER_OTLP_ENDPOINT names no collector"
    path = hold.settings.telemetry.jsonl_path
    return spans if path is None else f"{path}  ({spans})"
