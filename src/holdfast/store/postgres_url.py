"""The address of a PostgreSQL store: what to connect to, and the schema there."""

import re
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from holdfast.errors import Misconfigured

SCHEMA = "holdfast"
"""The schema that is used where the address names none."""

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,39}")


class Address(NamedTuple):
    """
    Where a store is.

    Attributes:
        url: What to connect to, without the schema; it may hold a password.
        schema: Where the tables are.
    """

    url: str
    schema: str

    def without_password(self) -> tuple[str, str | None]:
        """The address as the programs of PostgreSQL may be given it, and the password, which others must not see."""
        parts = urlsplit(self.url)
        who, at, where = parts.netloc.rpartition("@")
        user, _, password = who.partition(":")
        asked = parse_qsl(parts.query)
        password = unquote(password) or dict(asked).get("password", "")
        query = urlencode([(name, value) for name, value in asked if name != "password"], quote_via=quote)
        return parts._replace(netloc=f"{user}{at}{where}", query=query).geturl(), password or None


def address(url: str) -> Address:
    """
    What ``postgresql://user@host:5432/database?search_path=schema`` means; without a schema it is ``holdfast``.

    Raises:
        Misconfigured: it is no such address; its text is not shown, as it may hold a password.
    """
    try:
        parts = urlsplit(url)
        asked = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:
        what = "not an address that PostgreSQL has, such as postgresql://user@host:5432/database"
        raise Misconfigured(f"store.url: {what}") from None
    schema = dict(asked).get("search_path", SCHEMA)
    if not _NAME.fullmatch(schema) or schema.startswith("pg_"):
        raise Misconfigured("store.url: search_path must be the name of one schema, such as holdfast: a-z, 0-9 and _")
    query = urlencode([(name, value) for name, value in asked if name != "search_path"], quote_via=quote)
    return Address(parts._replace(query=query).geturl(), schema)
