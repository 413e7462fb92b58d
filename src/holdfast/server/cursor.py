"""Where a page of a listing ended: a moment and an id, as text that callers hand back and do not read."""

import base64
import binascii

from holdfast.errors import Unprocessable


def write_cursor(at_ns: int, item_id: str) -> str:
    """The cursor after this item."""
    return base64.urlsafe_b64encode(f"{at_ns} {item_id}".encode()).decode()


def read_cursor(cursor: str | None) -> tuple[int, str] | None:
    """
    What ``write_cursor`` was given; None where there is no cursor.

    Raises:
        Unprocessable: it never gave this.
    """
    if cursor is None:
        return None
    try:
        at, space, item_id = base64.urlsafe_b64decode(cursor.encode()).decode().partition(" ")
        if not space or not 0 <= int(at) < 2**63:
            raise ValueError(cursor)
        return int(at), item_id
    except (ValueError, binascii.Error) as error:
        raise Unprocessable("cursor must be one that an earlier page gave as `next`") from error
