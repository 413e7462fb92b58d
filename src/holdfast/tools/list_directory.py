"""The tool ``list_directory``: what is in a folder that tools may see."""

import asyncio
import os
import stat
from collections.abc import Awaitable, Callable
from typing import Any

from holdfast.journal.effects import effect
from holdfast.tools.error import ToolError
from holdfast.tools.sandbox import Parts, Sandbox, cannot_read


def bind(sandbox: Sandbox, max_entries: int) -> Callable[..., Awaitable[dict[str, Any]]]:
    """The tool, for folders in ``sandbox``, telling at most ``max_entries`` of one."""

    @effect("pure")
    async def list_directory(path: str = ".") -> dict[str, Any]:
        """
        List the files and folders in a folder.

        Gives `path`; `entries` sorted by name, each with `name`, `type` (`file`, `directory` or `other`) and `size` in
        bytes (null unless it is a file); and `left_out`, how many more entries there are.

        Args:
            path: The folder's path, relative to the working folder; `.` is the working folder itself.
        """
        return await asyncio.to_thread(_list, sandbox, max_entries, path)

    return list_directory


def _list(sandbox: Sandbox, max_entries: int, path: str) -> dict[str, Any]:
    try:
        parts = sandbox.locate(path)
        with sandbox.opened(parts) as (fd, found):
            if not stat.S_ISDIR(found.st_mode):
                raise ToolError(f"{path[:200]!r} is a file: read it instead.")
            with os.scandir(fd) as inside:
                names = sorted(entry.name for entry in inside if _seen(sandbox, parts, entry))
            entries = [_entry(sandbox, parts, fd, name) for name in names[:max_entries]]
    except OSError as error:
        raise cannot_read(path, error) from error
    return {"path": path, "entries": entries, "left_out": len(names) - len(entries)}


def _seen(sandbox: Sandbox, parts: Parts, entry: os.DirEntry[str]) -> bool:
    """Whether the entry is shown. A link is, where what it leads to may be seen."""
    if not entry.is_symlink():
        return not sandbox.hides(entry.name)
    try:
        sandbox.locate("/".join((*parts, entry.name)))
    except ToolError:
        return False
    return True


def _entry(sandbox: Sandbox, parts: Parts, fd: int, name: str) -> dict[str, Any]:
    kind, size = "other", None
    try:
        found = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if stat.S_ISLNK(found.st_mode):
            with sandbox.opened(sandbox.locate("/".join((*parts, name)))) as (_, found):
                pass
        if stat.S_ISDIR(found.st_mode):
            kind = "directory"
        elif stat.S_ISREG(found.st_mode):
            kind, size = "file", found.st_size
    except (OSError, ToolError):
        pass  # it went away meanwhile, or is a link to a pipe or to nothing: its name is all there is to tell
    return {"name": os.fsencode(name).decode(errors="replace"), "type": kind, "size": size}
