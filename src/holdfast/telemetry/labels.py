"""Label values are closed sets: what is outside of its set is told as ``OTHER``."""

OTHER = "_other"
"""Stands for every label value outside its closed set."""


def bounded(name: str, seen: set[str], most: int) -> str:
    """The label of ``name``: itself for the first ``most`` names, ``OTHER`` for further ones. None changes its own."""
    label = name if name in seen or len(seen) < most else OTHER
    seen.add(label)
    return label
