"""Where conversations and keys are kept: one Protocol, an embedded database, and a store that forgets at exit."""

from holdfast.store.base import (
    Conversation,
    Past,
    SessionSummary,
    Store,
    StoredKey,
    TurnRecord,
    check_unicode,
    fit_window,
    tokens_in,
)
from holdfast.store.memory import MemoryStore
from holdfast.store.spec import StoreSpec
from holdfast.store.sqlite import SQLiteStore


def open_store(spec: StoreSpec) -> Store:
    """The store that ``spec.url`` names, not yet opened."""
    scheme, _, path = spec.url.partition(":")
    return SQLiteStore(path) if scheme == "sqlite" else MemoryStore()


__all__ = [
    "Conversation",
    "MemoryStore",
    "Past",
    "SQLiteStore",
    "SessionSummary",
    "Store",
    "StoreSpec",
    "StoredKey",
    "TurnRecord",
    "check_unicode",
    "fit_window",
    "open_store",
    "tokens_in",
]
