"""
Turns that are kept: every model call and tool call is a unit, and so an effect happens once, whoever dies when.

Read ``journal`` first.
"""

from holdfast.journal.codec import JSON, Codec, JsonCodec, canonical, encode_json, unicode
from holdfast.journal.effects import (
    DID_NOT_HAPPEN,
    ONCE,
    PURE,
    UNKNOWN,
    Declared,
    Happened,
    Reconcile,
    Unclear,
    current_key,
    declared_effect,
    effect,
    idempotency_key,
    inside,
)
from holdfast.journal.entry import UNKEPT, Asked, Entry, Unkept, digest_of
from holdfast.journal.journal import KEEP_S, STOPS, Journal
from holdfast.journal.shield import shielded
from holdfast.journal.story import Numbered, Story, encode, read_said, unbroken

__all__ = [
    "DID_NOT_HAPPEN",
    "JSON",
    "KEEP_S",
    "ONCE",
    "PURE",
    "STOPS",
    "UNKEPT",
    "UNKNOWN",
    "Asked",
    "Codec",
    "Declared",
    "Entry",
    "Happened",
    "Journal",
    "JsonCodec",
    "Numbered",
    "Reconcile",
    "Story",
    "Unclear",
    "Unkept",
    "canonical",
    "current_key",
    "declared_effect",
    "digest_of",
    "effect",
    "encode",
    "encode_json",
    "idempotency_key",
    "inside",
    "read_said",
    "shielded",
    "unbroken",
    "unicode",
]
