"""What two machines must have in common for the same computation to give the same bits on both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from laconic.errors import ConfigError

Likeness: TypeAlias = Mapping[str, str]

REFUSED: Final = ("laconic", "program", "numpy", "onnxruntime", "zstandard", "machine")
"""Where these differ nothing is computed."""

PROCESSOR: Final = "processor"
"""Where this differs bits may: libraries choose their kernels by it."""


def likeness() -> Callable[[], dict[str, str]]:
    """A function that tells it of the process that calls it.

    It stands by itself, so that it can be sent as text to a machine with another laconic, or none.
    """

    def tell() -> dict[str, str]:
        import hashlib
        import platform
        from importlib import metadata, resources
        from pathlib import Path

        found = {"machine": platform.machine(), "program": "none"}
        for name in ("laconic", "numpy", "onnxruntime", "zstandard"):
            try:
                found[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                found[name] = "none"
        try:
            import laconic

            found["laconic"] = str(laconic.__version__)
            with resources.as_file(resources.files("laconic")) as folder:
                h = hashlib.sha256()
                for path in sorted(folder.rglob("*.py")):
                    h.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
                found["program"] = h.hexdigest()[:16]
        except (ImportError, AttributeError):
            pass
        try:
            lines = Path("/proc/cpuinfo").read_text().splitlines()
        except OSError:
            lines = []
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        found["processor"] = names[0] if names else platform.processor() or platform.machine()
        return found

    return tell


def check(here: Likeness, there: Likeness, where: str) -> None:
    """Raises `ConfigError` for a machine whose results may be others."""
    for key in REFUSED:
        if here[key] != there.get(key):
            what = "source of laconic" if key == "program" else key
            remedy = "install the same there" if key != "machine" else "leave it out of the cluster"
            raise ConfigError(f"{what} on {where}", value=there.get(key), limit=here[key], remedy=remedy)
