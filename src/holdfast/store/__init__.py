"""Where conversations and keys are kept: one Protocol, in a file, in PostgreSQL, or in memory."""

from holdfast.clock import Clock
from holdfast.errors import Misconfigured
from holdfast.store.accounts import Account, Cap, Hold, Scope, Settled, Standing
from holdfast.store.base import Hear, Heard, Store
from holdfast.store.memory import MemoryStore
from holdfast.store.notes import KEPT_NOTES, Note, NoteKind
from holdfast.store.records import (
    Accepted,
    Claim,
    Effect,
    Ending,
    NewTurn,
    Past,
    Said,
    SessionSummary,
    StoredKey,
    TurnRecord,
    TurnState,
    Unit,
    UnitKind,
    UnitState,
    check_unicode,
    fit_window,
    tokens_in,
)
from holdfast.store.spec import StoreSpec
from holdfast.store.sqlite import SQLiteStore
from holdfast.store.sqlite_restore import put_in_place, schema_of


def open_store(spec: StoreSpec, clock: Clock | None = None) -> Store:
    """
    The store that ``spec.url`` names, not yet opened.

    Args:
        spec: Which one, where, and how it keeps.
        clock: Time for one in memory or in a file, chance for PostgreSQL; None takes the machine's.

    Raises:
        Misconfigured: its client is not installed, or its address is none. Nothing was opened.
    """
    _, _, path = spec.url.get_secret_value().partition(":")
    if spec.kind == "memory":
        return MemoryStore(clock)
    if spec.kind == "sqlite":
        return SQLiteStore(path, clock, spec.durability)
    try:
        from holdfast.store.postgres import PostgresStore  # noqa: PLC0415 - its client may not be installed
    except ModuleNotFoundError as error:
        raise Misconfigured("store.url: PostgreSQL needs its client; install holdfast[postgres]") from error
    return PostgresStore(spec.url.get_secret_value(), spec.pool_size, clock)


__all__ = [
    "KEPT_NOTES",
    "Accepted",
    "Account",
    "Cap",
    "Claim",
    "Effect",
    "Ending",
    "Hear",
    "Heard",
    "Hold",
    "MemoryStore",
    "NewTurn",
    "Note",
    "NoteKind",
    "Past",
    "SQLiteStore",
    "Said",
    "Scope",
    "SessionSummary",
    "Settled",
    "Standing",
    "Store",
    "StoreSpec",
    "StoredKey",
    "TurnRecord",
    "TurnState",
    "Unit",
    "UnitKind",
    "UnitState",
    "check_unicode",
    "fit_window",
    "open_store",
    "put_in_place",
    "schema_of",
    "tokens_in",
]
