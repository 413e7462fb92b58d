import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.tools import list_directory, read_file
from holdfast.tools.error import ToolError
from holdfast.tools.sandbox import Sandbox
from holdfast.tools.spec import ToolsSpec

HIDDEN = ToolsSpec().hidden
VISIBLE = {"a.txt", "docs", "notes.md", "in", "infile", "back", "gone", "é.txt", "no\u202fbreak.txt"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files that say INSIDE, hidden ones that say HIDDEN, and links to a neighbour that says OUTSIDE."""
    base = tmp_path_factory.mktemp("base")
    root, outside = base / "root", base / "outside"
    (root / "docs").mkdir(parents=True)
    (root / ".git").mkdir()
    outside.mkdir()
    for name in ("a.txt", "é.txt", "no\u202fbreak.txt", "docs/notes.md"):
        (root / name).write_text("INSIDE")
    for name in (".env", ".git/config", "store.db", "store.db-wal", "docs/KEY.PEM", "holdfast.toml"):
        (root / name).write_text("HIDDEN")
    (outside / "secret.txt").write_text("OUTSIDE")
    links: dict[str, str | Path] = {
        "in": "docs",
        "infile": "docs/notes.md",
        "out": "../outside",
        "outfile": outside / "secret.txt",
        "up": "..",
        "back": "../root",
        "loop": "loop",
        "envlink": ".env",
        ".shown": "a.txt",
        ".out": "../outside",
        "gone": "nowhere",
        "docs/upward": "../../outside",
    }
    for name, target in links.items():
        (root / name).symlink_to(target)
    return root


def reading(root: Path, path: str, max_bytes: int = 100) -> Any:
    return read_file._read(Sandbox(root, HIDDEN), max_bytes, path)


def listing(root: Path, path: str = ".", max_entries: int = 100) -> Any:
    return list_directory._list(Sandbox(root, HIDDEN), max_entries, path)


@pytest.mark.sockets
async def test_a_file_is_read_off_the_loop(root: Path) -> None:
    read = read_file.bind(Sandbox(root, HIDDEN), 100)
    assert await read("a.txt") == {"path": "a.txt", "size": 6, "text": "INSIDE"}


@pytest.mark.sockets
async def test_a_folder_is_listed_sorted_with_types_and_sizes(root: Path) -> None:
    folder = list_directory.bind(Sandbox(root, HIDDEN), 100)
    assert await folder() == {
        "path": ".",
        "entries": [
            {"name": "a.txt", "type": "file", "size": 6},
            {"name": "back", "type": "directory", "size": None},
            {"name": "docs", "type": "directory", "size": None},
            {"name": "gone", "type": "other", "size": None},
            {"name": "in", "type": "directory", "size": None},
            {"name": "infile", "type": "file", "size": 6},
            {"name": "no\u202fbreak.txt", "type": "file", "size": 6},
            {"name": "é.txt", "type": "file", "size": 6},
        ],
        "left_out": 0,
    }


def test_a_long_folder_says_how_much_was_left_out(root: Path) -> None:
    told = listing(root, max_entries=3)
    assert [entry["name"] for entry in told["entries"]] == ["a.txt", "back", "docs"]
    assert told["left_out"] == 5


@pytest.mark.parametrize(
    "path", ["docs/notes.md", "in/notes.md", "infile", "./docs//notes.md", "docs/../docs/notes.md"]
)
def test_links_and_detours_inside_are_followed(root: Path, path: str) -> None:
    assert reading(root, path) == {"path": path, "size": 6, "text": "INSIDE"}


@pytest.mark.parametrize(
    "path",
    [
        "..",
        "../outside/secret.txt",
        "docs/../../outside/secret.txt",
        "/etc/passwd",
        "//etc/passwd",
        "out/secret.txt",
        "outfile",
        "up/outside/secret.txt",
        "docs/upward/secret.txt",
        "up",
        "out/nothing",
        "../root/a.txt",
    ],
)
def test_no_path_leads_outside(root: Path, path: str) -> None:
    for use in (reading, listing):
        with pytest.raises(ToolError, match="outside the folder"):
            use(root, path)


@pytest.mark.parametrize(
    "path",
    [
        ".env",
        ".git",
        ".git/config",
        "store.db",
        "store.db-wal",
        "holdfast.toml",
        "docs/KEY.PEM",
        "envlink",
        "in/KEY.PEM",
        "loop",
        "loop/x",
        "nothing",
        "a.txt/x",
        "x" * 300,
        ".git/nothing",
        ".shown",
        ".out/secret.txt",
    ],
)
def test_what_is_hidden_cannot_be_told_from_nothing(root: Path, path: str) -> None:
    for use in (reading, listing):
        with pytest.raises(ToolError) as refused:
            use(root, path)
        assert str(refused.value) == f"There is nothing at {path[:200]!r}."


def test_the_root_itself_may_be_hidden_or_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / ".link").symlink_to(root)
    assert reading(tmp_path / ".link", "a.txt")["text"] == "INSIDE"


def test_a_missing_root_is_an_empty_place(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="nothing at"):
        listing(tmp_path / "gone")


def test_what_a_folder_and_a_file_cannot_do_is_said(root: Path) -> None:
    with pytest.raises(ToolError, match="is a folder"):
        reading(root, "docs")
    with pytest.raises(ToolError, match="is a file"):
        listing(root, "a.txt")


def test_a_file_may_have_as_many_bytes_as_allowed_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "big.txt").write_text("é" * 5)
    assert reading(tmp_path, "big.txt", 10) == {"path": "big.txt", "size": 10, "text": "é" * 5}
    with pytest.raises(ToolError, match="more than 9 bytes"):
        reading(tmp_path, "big.txt", 9)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs files that claim to be empty, as Linux has")
def test_a_file_that_claims_to_be_empty_is_bounded_too() -> None:
    with pytest.raises(ToolError, match="more than 9 bytes"):
        read_file._read(Sandbox(Path("/proc"), ()), 9, f"{os.getpid()}/status")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"text\0", b"\xc3"])
def test_a_binary_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data").write_bytes(content)
    with pytest.raises(ToolError, match="not a text file in UTF-8"):
        reading(tmp_path, "data")


def test_a_pipe_is_refused_and_never_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("pipe")
    for path in ("pipe", "link"):
        with pytest.raises(ToolError, match="not a regular file"):
            reading(tmp_path, path)
    assert [entry["type"] for entry in listing(tmp_path)["entries"]] == ["file", "other", "other"]

    looks_like_a_file = os.stat(tmp_path / "file")  # noqa: PTH116 - stands in for os.stat
    monkeypatch.setattr(os, "stat", lambda *_, **__: looks_like_a_file)
    with pytest.raises(ToolError, match="not a regular file"):
        reading(tmp_path, "pipe")


def test_a_device_is_refused() -> None:
    with pytest.raises(ToolError, match="not a regular file"):
        reading(Path("/dev"), "zero")


def test_a_file_that_may_not_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(13, "no", "/somewhere/outside")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ToolError) as refused:
        reading(tmp_path, "a.txt")
    assert str(refused.value) == "'a.txt' cannot be read: Permission denied."


def test_a_link_put_in_after_the_decision_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("OUTSIDE")
    (tmp_path / "root" / "folder").mkdir(parents=True)
    (tmp_path / "root" / "folder" / "file").write_text("INSIDE")
    box = Sandbox(tmp_path / "root", ())
    parts = box.locate("folder/file")

    (tmp_path / "root" / "folder").rename(tmp_path / "root" / "was")
    (tmp_path / "root" / "folder").symlink_to("../outside")
    with pytest.raises(ToolError), box.opened(parts):
        pytest.fail("it followed the link")

    looks_like_a_folder = os.stat(tmp_path)  # noqa: PTH116 - stands in for os.stat
    monkeypatch.setattr(os, "stat", lambda *_, **__: looks_like_a_folder)
    with pytest.raises(OSError, match="folder"), box.opened(parts):
        pytest.fail("it followed the link that was put in last")


def test_no_descriptor_is_left_open(root: Path) -> None:
    before = len(os.listdir("/dev/fd"))  # noqa: PTH208 - a listing of descriptors
    for path in ("a.txt", "docs", "nothing", "docs/nothing", "out", "a.txt/x", "infile"):
        for use in (reading, listing):
            with suppress(ToolError):
                use(root, path)
    assert len(os.listdir("/dev/fd")) == before  # noqa: PTH208 - a listing of descriptors


names = st.sampled_from(
    [
        "..",
        ".",
        "",
        "docs",
        "a.txt",
        "notes.md",
        "in",
        "infile",
        "out",
        "outfile",
        "outside",
        "secret.txt",
        "up",
        "back",
        "root",
        "loop",
        "envlink",
        ".env",
        ".git",
        "config",
        "store.db",
        "KEY.PEM",
        "gone",
        "upward",
        "é.txt",
        "\x00",
        "~",
        "\\",
    ]
)
paths = st.builds(
    lambda start, parts: start + "/".join(parts),
    st.sampled_from(["", "", "", "/", "//", "./", "../"]),
    st.lists(names | st.text(max_size=5), max_size=8),
)


@given(path=paths)
@settings(max_examples=400, deadline=None)
def test_no_path_ever_reads_or_lists_what_is_outside_or_hidden(root: Path, path: str) -> None:
    for path_tried in (path, f"{root}/{path}", f"{root.parent}/outside/{path}"):
        with suppress(ToolError):
            assert reading(root, path_tried)["text"] == "INSIDE"
        with suppress(ToolError):
            assert {entry["name"] for entry in listing(root, path_tried)["entries"]} <= VISIBLE
