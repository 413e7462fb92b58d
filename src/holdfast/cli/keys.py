"""``holdfast keys``: the API keys of the store that the settings name."""

import os
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from holdfast.cli.run import ConfigPath, run, settings
from holdfast.clock import Clock, iso
from holdfast.errors import Misconfigured
from holdfast.server.auth import SCOPES, make_key
from holdfast.store import Store, StoredKey, open_store

T = TypeVar("T")
MOST_DAYS = 36_500
_DAY_S = 86_400

app = typer.Typer(help="Create, list and revoke API keys.", no_args_is_help=True)


@app.command()
def create(
    user: Annotated[str, typer.Option(help="Whom the bearer of the key is.")],
    scope: Annotated[list[str] | None, typer.Option(help="What the key allows besides: delegate, operate.")] = None,
    days: Annotated[float | None, typer.Option(help="Days until it expires; never without this.")] = None,
    config: ConfigPath = None,
) -> None:
    """Create an API key and print it. It is shown this once: only a digest of it is kept."""
    clock = Clock()
    scopes = tuple(scope or ())
    if unknown := set(scopes) - set(SCOPES):
        raise Misconfigured(f"there is no scope {', '.join(sorted(unknown))}; there is {', '.join(SCOPES)}")
    if not user.strip() or not user.isprintable():
        raise Misconfigured("--user must not be blank, and must be printable text")
    if days is not None and not 0 < days <= MOST_DAYS:
        raise Misconfigured(f"--days must be more than 0 and at most {MOST_DAYS}, got {days:g}")
    key = make_key(user, scopes, clock, None if days is None else days * _DAY_S)
    _with_store(config, lambda store: store.add_key(key.stored))
    print(key.text)


@app.command(name="list")
def list_keys(config: ConfigPath = None) -> None:
    """List the keys: id, user, scopes, when made, and whether each is good."""
    now = Clock().wall_ns()
    keys = _with_store(config, lambda store: store.keys())
    for key in keys:
        print(f"{key.id}  {_state(key, now):<8}  {iso(key.created_ns)}  {key.principal}  {','.join(key.scopes) or '-'}")
    if not keys:
        print("No API keys: the server is open to its own machine alone.")


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id, as `holdfast keys list` shows it.")],
    config: ConfigPath = None,
) -> None:
    """Revoke a key. Running servers refuse it within two seconds."""
    if not _with_store(config, lambda store: store.revoke_key(key_id, Clock().wall_ns())):
        raise Misconfigured(f"there is no key {key_id}; holdfast keys list shows them")
    print(f"revoked {key_id}")


def _with_store(config: ConfigPath, job: Callable[[Store], Awaitable[T]]) -> T:
    spec = settings(config, os.environ).settings.store
    if spec.kind == "memory":
        raise Misconfigured("store.url is memory:, which forgets keys at exit; set it to sqlite:PATH or postgresql://…")
    store = open_store(spec)

    async def main() -> T:
        await store.open()
        try:
            return await job(store)
        finally:
            await store.close()

    return run(main())


def _state(key: StoredKey, now_ns: int) -> str:
    if key.revoked_ns is not None:
        return "revoked"
    return "expired" if key.expires_ns is not None and now_ns >= key.expires_ns else "good"
