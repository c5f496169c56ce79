"""`python -m laconic.compression.native` compiles the kernels ahead of time: no encoder waits for it."""

from __future__ import annotations

import sys

from laconic.compression import native


def main() -> int:
    """Load the kernels and say where they are kept; 1 if they cannot be used."""
    if not native.load():
        return 1
    from laconic.compression.native import kernels

    print(f"compiled kernels are ready, and kept in {kernels.folder()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
