"""``holdfast sim``: a model provider on this machine, for tests, demos and experiments."""

import asyncio
import signal
from pathlib import Path
from typing import Annotated

import typer

from holdfast.sim import Simulator


def sim(
    host: Annotated[str, typer.Option(help="Address to listen on; nobody is asked who they are.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8081,
    script: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|MODULE:NAME",
            help="Rules in YAML, or Python: rules.yaml, rules.py, rules.py:name, module:name. Default: the demo model.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same chance.")] = 0,
    first_token: Annotated[
        str | None, typer.Option(metavar="SECONDS", help="Latency: 0.3, 0.1..0.5, or 'p50=0.3 p95=1.2'.")
    ] = None,
    per_token: Annotated[
        str | None, typer.Option(metavar="SECONDS", help="The same for each further token of four characters.")
    ] = None,
) -> None:
    """Simulate the Anthropic and OpenAI APIs over HTTP, with streaming, latency, and faults on demand."""
    asyncio.run(
        serve(Simulator(script, host=host, port=port, seed=seed, first_token=first_token, per_token=per_token), script)
    )


async def serve(simulator: Simulator, script: str | None) -> None:
    """Serve until SIGINT or SIGTERM; hung requests are cut off."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with simulator:
        print(_summary(simulator.url, Path(script).name if script else "the demo model"), flush=True)
        await stop.wait()
    print("stopped")


def _summary(url: str, brain: str) -> str:
    return f"""\
holdfast sim: {brain} on {url}

  Anthropic SDK      ANTHROPIC_BASE_URL={url}
  OpenAI SDK         OPENAI_BASE_URL={url}/v1
  any API key works, any model name too

Try:
  curl {url}/v1/messages -d '{{"model":"sim","max_tokens":100,"messages":[{{"role":"user","content":"hello"}}]}}'
  curl {url}/sim/faults -d '{{"fault":"overloaded","times":2}}'
  curl {url}/sim/requests

Ctrl-C stops it."""
