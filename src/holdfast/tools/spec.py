"""What the built-in tools may touch."""

from pathlib import Path

from pydantic import BaseModel, Field


class ToolsSpec(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """The built-in assistant's tools. Section ``tools``."""

    root: Path = Path()
    """Folder that file tools see; nothing outside it can be reached, through symbolic links either."""

    hidden: tuple[str, ...] = (
        ".*",
        "*.db",
        "*.db-*",
        "*.pem",
        "*.key",
        "holdfast.toml",
        "holdfast.yaml",
        "holdfast.yml",
    )
    """Name patterns of files and folders under `root` that file tools treat as absent."""

    max_read_bytes: int = Field(262_144, ge=1, le=10_485_760)
    """Largest file in bytes that `read_file` returns."""

    max_entries: int = Field(500, ge=1, le=10_000)
    """Most entries that `list_directory` returns; it says how many it left out."""
