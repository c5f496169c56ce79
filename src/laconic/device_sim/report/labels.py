"""Names of a sweep's runs for people: what all have in common once, and of each key its end."""

from __future__ import annotations

from collections.abc import Sequence


def short(labels: Sequence[str]) -> tuple[list[str], list[str]]:
    """Short names in the labels' order, and what all of them share.

    A label is `KEY=VALUE,KEY=VALUE`, as folders of runs are named. Of a key its last two names stay, or all
    where these would be those of another key, too. A single label shares nothing.
    """
    parts = [label.split(",") if label else [] for label in labels]
    same = [p for p in (parts[0] if parts else []) if len(parts) > 1 and all(p in other for other in parts)]
    keys = {part.partition("=")[0] for found in parts for part in found}
    ends = [_end(key) for key in keys]
    names = {key: key if ends.count(_end(key)) > 1 else _end(key) for key in keys}

    def name(part: str) -> str:
        key, equals, value = part.partition("=")
        return names[key] + equals + value

    return [", ".join(name(p) for p in found if p not in same) for found in parts], [name(p) for p in same]


def _end(key: str) -> str:
    return ".".join(key.split(".")[-2:])
