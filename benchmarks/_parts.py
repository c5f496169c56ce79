"""A benchmark of several parts: each is measured with a pool of processes, judged, and kept as it is done."""

from __future__ import annotations

import json
import multiprocessing
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _result import Bar, emit, report

WORKERS = 2

Found = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """What is measured, with a pool of processes for those that can use one, and its bars."""

    measure: Callable[[Executor], Found]
    bars: Callable[[Found], list[Bar]]


def measure(
    bench: str, parts: Mapping[str, Part], wanted: list[str], keep: Callable[[Found], None] | None
) -> int:
    """Measure what is `wanted` and print it; `keep` is given each part's results once they are there."""
    results: Found = {}
    bars: list[Bar] = []
    for name in wanted:
        print(f"bench: {name}", file=sys.stderr)
        with ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn")) as pool:
            results[name] = parts[name].measure(pool)
        bars += parts[name].bars(results[name])
        if keep is not None:
            # After each part: what has been measured is not lost with what has not.
            keep({name: results[name]})
    return emit(bench, results, bars)


def merge(bench: str, file: Path, fresh: Found, parts: Mapping[str, Part]) -> Found:
    """Replace in `file` what is `fresh`; returns the whole report that is in it then.

    Results of before that the bars of now cannot judge are left out: they would keep out the new ones.
    """
    known: Found = json.loads(file.read_text())["results"] if file.exists() else {}
    merged: Found = {}
    bars: list[Bar] = []
    for name in parts:
        if name not in known | fresh:
            continue
        try:
            bars += parts[name].bars((known | fresh)[name])
        except (KeyError, TypeError):
            if name in fresh:
                raise
            print(f"bench: the results of {name} have a form of before and are left out", file=sys.stderr)
        else:
            merged[name] = (known | fresh)[name]
    told = report(bench, merged, bars)
    file.write_text(json.dumps(told, indent=2) + "\n")
    return told
