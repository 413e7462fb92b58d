"""
One folder, and no way out of it: what the file tools see of the disk.

::

    path ─▶ not absolute, no way up ─▶ links resolved ─▶ still inside, nothing hidden ─▶ opened folder by folder
                                                                                            following no link

The first steps decide on names, and names can change meanwhile. So the last one never follows a link: where
somebody puts one in between the decision and the opening, the opening fails. Hard links cannot be told from files.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from posixpath import normpath

from holdfast.tools.error import ToolError

MAX_PATH_CHARS = 4_096

Parts = tuple[str, ...]
"""A place under the root, as the names of the folders that lead to it; empty is the root itself."""


class Sandbox:
    """
    What can be seen under one folder. Everything here reads the disk, so call it off the event loop.

    Args:
        root: The folder. A relative one is under the working folder of the moment.
        hidden: Name patterns (``*``, ``?``, ``[…]``; upper and lower case are the same) of files and folders that are
            treated as absent, wherever they are under the root.
    """

    def __init__(self, root: Path, hidden: tuple[str, ...]) -> None:
        self._root = root
        self._hidden = tuple(pattern.lower() for pattern in hidden)

    def locate(self, path: str) -> Parts:
        """
        Where ``path`` leads, links followed. There may be nothing there.

        Raises:
            ToolError: it leads outside, or to something hidden.
        """
        if len(path) > MAX_PATH_CHARS or not _is_text(path):
            raise ToolError(f"A path is text of at most {MAX_PATH_CHARS} characters, without NUL.")
        asked = Path(normpath(path))
        if asked.is_absolute() or asked.parts[:1] == ("..",):
            raise ToolError(f"{path[:200]!r} is outside the folder that can be seen here: use a path relative to it.")
        if any(map(self.hides, asked.parts)):
            raise absent(path)
        try:
            root = self._root.resolve()
            parts = (root / asked).resolve().relative_to(root).parts
        except ValueError:  # relative_to: a link leads out
            raise ToolError(f"{path[:200]!r} is outside the folder that can be seen here.") from None
        except (OSError, RuntimeError):  # a name that is too long, links in a circle
            raise absent(path) from None
        if any(map(self.hides, parts)):
            raise absent(path)
        return parts

    def hides(self, name: str) -> bool:
        """Whether a file or folder of this name is treated as absent."""
        return any(fnmatchcase(name.lower(), pattern) for pattern in self._hidden)

    @contextmanager
    def opened(self, parts: Parts) -> Iterator[tuple[int, os.stat_result]]:
        """
        A descriptor of the regular file or folder at ``parts``, open for reading, and what it is.

        Raises:
            ToolError: it is neither: a pipe, a socket or a device, which were not opened.
            OSError: there is nothing there, it may not be read, or it changed meanwhile.
        """
        fd = os.open(self._root.resolve(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in parts:
                kind = os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode
                if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
                    raise ToolError(f"{'/'.join(parts)!r} is not a regular file or folder.")
                # O_NONBLOCK: a pipe that took the file's place just now must not hold us up.
                inner = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=fd)
                os.close(fd)
                fd = inner
            found = os.fstat(fd)
            if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
                raise ToolError(f"{'/'.join(parts)!r} is not a regular file or folder.")
            yield fd, found
        finally:
            os.close(fd)


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:  # half a surrogate pair: no JSON could carry it back
        return False
    return "\0" not in path


def absent(path: str) -> ToolError:
    """The same words for what is not there and for what is hidden."""
    return ToolError(f"There is nothing at {path[:200]!r}.")


def cannot_read(path: str, error: OSError) -> ToolError:
    """What to tell the model of an error of the disk."""
    if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}:
        return absent(path)
    return ToolError(f"{path[:200]!r} cannot be read: {os.strerror(error.errno or errno.EIO)}.")
