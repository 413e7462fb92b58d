"""API keys, for the store that forgets at exit."""

import msgspec

from holdfast.store.records import StoredKey, check_unicode


class MemoryKeys:
    """The part of ``MemoryStore`` that keeps API keys."""

    def __init__(self) -> None:
        self._keys: dict[str, StoredKey] = {}

    async def add_key(self, key: StoredKey) -> None:
        """See ``Store.add_key``."""
        check_unicode(key.id, key.principal, *key.scopes)
        self._keys.setdefault(key.id, key)

    async def keys(self) -> list[StoredKey]:
        """See ``Store.keys``."""
        return sorted(self._keys.values(), key=lambda key: (key.created_ns, key.id))

    async def revoke_key(self, key_id: str, now_ns: int) -> bool:
        """See ``Store.revoke_key``."""
        check_unicode(key_id)
        key = self._keys.get(key_id)
        if key is not None and key.revoked_ns is None:
            self._keys[key_id] = msgspec.structs.replace(key, revoked_ns=now_ns)
        return key is not None
