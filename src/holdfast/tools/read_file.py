"""The tool ``read_file``: one text file from the folder that tools may see."""

import asyncio
import os
import stat
from collections.abc import Awaitable, Callable
from typing import Any

from holdfast.journal.effects import effect
from holdfast.tools.error import ToolError
from holdfast.tools.sandbox import Sandbox, cannot_read


def bind(sandbox: Sandbox, max_bytes: int) -> Callable[..., Awaitable[dict[str, Any]]]:
    """The tool, for files of at most ``max_bytes`` in ``sandbox``."""

    @effect("pure")
    async def read_file(path: str) -> dict[str, Any]:
        """
        Read a text file.

        Gives `path`, `size` in bytes, and `text`, the whole file. Files that are large or not UTF-8 cannot be read.

        Args:
            path: The file's path, relative to the working folder, such as `docs/notes.md`.
        """
        return await asyncio.to_thread(_read, sandbox, max_bytes, path)

    return read_file


def _read(sandbox: Sandbox, max_bytes: int, path: str) -> dict[str, Any]:
    try:
        with sandbox.opened(sandbox.locate(path)) as (fd, found):
            if stat.S_ISDIR(found.st_mode):
                raise ToolError(f"{path!r} is a folder: list it instead.")
            content = b""
            # One byte more than allowed tells a file that is too large, whatever size it claims to have.
            if found.st_size <= max_bytes:
                with os.fdopen(fd, "rb", closefd=False) as file:
                    content = file.read(max_bytes + 1)
            if max(found.st_size, len(content)) > max_bytes:
                raise ToolError(f"{path!r} has more than {max_bytes} bytes, which is the most that can be read.")
    except OSError as error:
        raise cannot_read(path, error) from error
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise ToolError(f"{path!r} is not a text file in UTF-8.")
    return {"path": path, "size": len(content), "text": text}
