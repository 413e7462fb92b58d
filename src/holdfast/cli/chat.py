"""``holdfast chat``: talk to an agent in the terminal, with its tool calls shown."""

import asyncio
import io
import os
import sys
import threading
from contextlib import suppress
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from holdfast.cli.run import ConfigPath, run, settings
from holdfast.clock import token_hex
from holdfast.errors import HoldfastError
from holdfast.events import Event, ModelFinished, TextDelta, ToolFinished, ToolStarted, TurnEnded, TurnIds
from holdfast.runtime import Holdfast
from holdfast.server.auth import ANONYMOUS
from holdfast.telemetry import configure_logs
from holdfast.turn import Ask

SHOWN_CHARS = 160
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

_CONTROLS = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)], "\N{REPLACEMENT CHARACTER}")


def chat(
    agent: Annotated[
        str | None, typer.Argument(metavar="[AGENT]", help="module:object or path.py:object; the assistant without it.")
    ] = None,
    session: Annotated[str | None, typer.Option(help="Conversation to go on with; a new one without it.")] = None,
    user: Annotated[str, typer.Option(help="Whose conversation it is.")] = ANONYMOUS,
    config: ConfigPath = None,
) -> None:
    """Talk to an agent in this terminal. The conversation is kept in the store, as the server's are."""
    loaded = settings(config, os.environ, agent__targets=(agent,) if agent else None)
    configure_logs(loaded.settings.telemetry.model_copy(update={"log_level": "error"}))
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    try:
        run(_talk(Holdfast(loaded.settings), session or f"s_{token_hex(4)}", user))
    except KeyboardInterrupt:
        os._exit(INTERRUPTED)  # Everything is closed, but a thread may still wait for the next line.


async def _talk(hold: Holdfast, session_id: str, user: str) -> None:
    console = Console(markup=False, emoji=False, highlight=False, soft_wrap=True)
    asks = sys.stdin.isatty()
    async with hold:
        console.print(_visible(f"{hold.default_agent} on {hold.model}, session {session_id}"), style="dim")
        try:
            while (message := await _next_line(asks)) is not None:
                if message.strip():
                    await _ask(
                        hold,
                        console,
                        Ask(
                            message=message,
                            principal=user,
                            session_id=session_id,
                            trace_id=token_hex(16),
                            request_id=token_hex(8),
                            streams=True,
                        ),
                    )
        except asyncio.CancelledError:
            hold.drain.hurry()
            raise


async def _next_line(asks: bool) -> str | None:
    """
    The next line, or None at the end.

    It is read on a thread of its own: asyncio's would be waited for at exit, and with it for one more line.
    """
    loop = asyncio.get_running_loop()
    line: asyncio.Future[str | None] = loop.create_future()

    def take(text: str | None) -> None:
        if not line.done():
            line.set_result(text)

    def read() -> None:
        text: str | None = None
        with suppress(EOFError):
            text = input("> " if asks else "")
        with suppress(RuntimeError):  # The loop has closed: nobody waits any more.
            loop.call_soon_threadsafe(take, text)

    threading.Thread(target=read, name="holdfast-stdin", daemon=True).start()
    return await line


async def _ask(hold: Holdfast, console: Console, ask: Ask) -> None:
    shown = _Shown(console)
    begun = hold.begin(ask, watch=(shown.take,))
    try:
        answer = await begun
    except HoldfastError as error:
        console.print(_visible(error.detail), style="red")
        return
    except asyncio.CancelledError:
        if begun.accepted.done() and begun.accepted.exception() is None:
            await hold.turns.cancel(begun.accepted.result().turn_id)
        raise
    if not shown.said:
        console.print(_visible(answer.reply))
    usage = answer.usage
    console.print(f"turn {answer.turn_id} · {usage.input_tokens} in, {usage.output_tokens} out", style="dim")


class _Shown:
    """Writes a turn to the terminal as it happens."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._in_line = False
        self.said = False

    def take(self, _ids: TurnIds, event: Event) -> None:
        match event:
            case TextDelta(text=text):
                self._console.print(_visible(text), end="")
                self._in_line = self.said = True
            case ModelFinished() | TurnEnded():
                self._end_line()
            case ToolStarted(tool=tool, args=args):
                self.said = False
                self._note(f"{tool}({_readable(args)})")
            case ToolFinished(tool=tool, status="ok", result=result):
                self._note(f"{tool} → {result}")
            case ToolFinished(tool=tool, status=status):
                self._note(f"{tool} → {status}")

    def _note(self, text: str) -> None:
        self._end_line()
        flat = _visible(" ".join(text.split()))
        self._console.print(f"  · {flat[:SHOWN_CHARS]}{'…' if len(flat) > SHOWN_CHARS else ''}", style="dim")

    def _end_line(self) -> None:
        if self._in_line:
            self._console.print()
            self._in_line = False


def _readable(args: msgspec.Raw) -> str:
    found = msgspec.json.decode(args)
    return ", ".join(f"{name}={value!r}" for name, value in found.items()) if isinstance(found, dict) else str(found)


def _visible(text: str) -> str:
    """``text`` without the control characters by which a model or a tool could steer the terminal."""
    return text.translate(_CONTROLS)
