"""The loops of the adaptive coder over plain integer arrays, compiled: a stream in one call.

What they compute is defined by `frequencies`, `range_coder` and `rans`, whose plain Python is the reference.
Arrays that describe a stream's model, for `C` contexts and an alphabet of `A` symbols:

* `counts` `(C, A)` and `sums` `(C,)`: symbols that came, by context;
* `prior` `(1, A)` or `(C, A)`: the weights of `Model.prior`;
* `starts` `(C, A + 1)`: first slots, and 16384; `guide` `(C, 64)`: the symbol that owns every 256th slot;
* `fresh` `(C,)`: whether a context's starts still follow from its counts;
* `scratch` `(2, A)`.

`contexts` is empty where all are 0. `rules`: first and longest run, the weights of a symbol that came and of
the background, the ceiling of a context's counts.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from laconic.compression.native.compiling import (
    BYTE_TABLE,
    BYTES,
    INT,
    INTS,
    RULES,
    SHORTS,
    TABLE,
    WORDS,
    compiled,
    part,
    readonly,
)

Bytes: TypeAlias = NDArray[np.uint8]
Shorts: TypeAlias = NDArray[np.uint16]
Words: TypeAlias = NDArray[np.uint32]
Ints: TypeAlias = NDArray[np.int64]
Rules: TypeAlias = tuple[int, int, int, int, int]

MODEL = (TABLE, INTS, readonly(TABLE), TABLE, BYTE_TABLE, BYTES, TABLE, RULES)

# Of the format, as in range_coder; written here because compiled code is kept by this file's age alone.
PRECISION = 14
TOTAL = 1 << PRECISION
FULL = 1 << 48
LEAST = 1 << 32
LOW = 1 << 16
BUCKET = 8


@part
def wide(value: Any) -> int:
    """An element of an array as int64, which kernels compute with: with uint64 it would become a float."""
    return int(np.int64(value))


@part
def run_end(start: int, count: int, rules: Rules) -> int:
    return min(start + min(max(start // 4, rules[0]), rules[1]), count)


@part
def learn(
    symbols: Bytes,
    contexts: Bytes,
    start: int,
    stop: int,
    counts: Ints,
    sums: Ints,
    fresh: Bytes,
    ceiling: int,
) -> None:
    for i in range(start, stop):
        row = wide(contexts[i]) if contexts.size else 0
        counts[row, symbols[i]] += 1
        sums[row] += 1
        fresh[row] = 0
    for row in range(sums.size):
        if sums[row] > ceiling:
            sums[row] = 0
            for symbol in range(counts.shape[1]):
                counts[row, symbol] >>= 1
                sums[row] += counts[row, symbol]
            fresh[row] = 0


@part
def refresh(
    row: int, counts: Ints, sums: Ints, prior: Ints, starts: Ints, guide: Bytes, scratch: Ints, rules: Rules
) -> None:
    """Starts and guide of a context from its counts."""
    alphabet = counts.shape[1]
    seen, last = rules[2], alphabet - 1
    of_prior = row if prior.shape[0] > 1 else 0
    once, weight = scratch[0], scratch[1]
    for s in range(alphabet):
        once[s] = seen * (counts[row, max(s - 1, 0)] + 2 * counts[row, s] + counts[row, min(s + 1, last)])
    whole = 16 * seen * sums[row]
    for s in range(alphabet):
        whole += prior[of_prior, s]
    background, total, best = rules[3], 0, 0
    for s in range(alphabet):
        near = once[max(s - 1, 0)] + 2 * once[s] + once[min(s + 1, last)] + prior[of_prior, s]
        weight[s] = seen * counts[row, s] + near * background // whole + 1
        total += weight[s]
        if weight[s] > weight[best]:
            best = s
    spread, left = TOTAL - alphabet, TOTAL
    for s in range(alphabet):
        weight[s] = weight[s] * spread // total + 1
        left -= weight[s]
    weight[best] += left
    at = bucket = 0
    for s in range(alphabet):
        starts[row, s] = at
        at += weight[s]
        while bucket << BUCKET < at:
            guide[row, bucket] = s
            bucket += 1
    starts[row, alphabet] = at


@part
def owner(slot: int, row: int, starts: Ints, guide: Bytes) -> int:
    symbol = wide(guide[row, slot >> BUCKET])
    while starts[row, symbol + 1] <= slot:
        symbol += 1
    return symbol


@compiled(None, readonly(BYTES), readonly(BYTES), *MODEL, SHORTS, SHORTS)
def modelled(
    symbols: Bytes,
    contexts: Bytes,
    counts: Ints,
    sums: Ints,
    prior: Ints,
    starts: Ints,
    guide: Bytes,
    fresh: Bytes,
    scratch: Ints,
    rules: Rules,
    start_of: Shorts,
    frequency_of: Shorts,
) -> None:
    """Start and frequency of each symbol under the frequencies of its run."""
    stop = 0
    while stop < symbols.size:
        start, stop = stop, run_end(stop, symbols.size, rules)
        for i in range(start, stop):
            row = wide(contexts[i]) if contexts.size else 0
            if not fresh[row]:
                refresh(row, counts, sums, prior, starts, guide, scratch, rules)
                fresh[row] = 1
            symbol = wide(symbols[i])
            start_of[i] = starts[row, symbol]
            frequency_of[i] = starts[row, symbol + 1] - starts[row, symbol]
        learn(symbols, contexts, start, stop, counts, sums, fresh, rules[4])


@compiled(INT, readonly(SHORTS), INTS, readonly(BYTES), *MODEL, INT, BYTES)
def decode_range(
    words: Shorts,
    state: Ints,
    contexts: Bytes,
    counts: Ints,
    sums: Ints,
    prior: Ints,
    starts: Ints,
    guide: Bytes,
    fresh: Bytes,
    scratch: Ints,
    rules: Rules,
    begin: int,
    out: Bytes,
) -> int:
    """The symbols from `begin` on, what is before them being there; -1, or a slot that there is not.

    `state`: range, code and words read, before and after.
    """
    span, code, at = state[0], state[1], state[2]
    stop = 0
    while stop < out.size:
        start, stop = stop, run_end(stop, out.size, rules)
        if stop <= begin:
            continue
        for i in range(max(start, begin), stop):
            row = wide(contexts[i]) if contexts.size else 0
            if not fresh[row]:
                refresh(row, counts, sums, prior, starts, guide, scratch, rules)
                fresh[row] = 1
            share = span >> PRECISION
            slot = code // share
            if slot >= TOTAL:
                return wide(slot)
            symbol = owner(slot, row, starts, guide)
            out[i] = symbol
            code -= share * starts[row, symbol]
            span = share * (starts[row, symbol + 1] - starts[row, symbol])
            if span < LEAST:
                span <<= 16
                code <<= 16
                if at < words.size:
                    code |= wide(words[at])
                at += 1
        learn(out, contexts, start, stop, counts, sums, fresh, rules[4])
    state[0], state[1], state[2] = span, code, at
    return -1


@compiled(INT, readonly(SHORTS), INT, WORDS, readonly(BYTES), *MODEL, INT, BYTES)
def decode_lanes(
    words: Shorts,
    at: int,
    states: Words,
    contexts: Bytes,
    counts: Ints,
    sums: Ints,
    prior: Ints,
    starts: Ints,
    guide: Bytes,
    fresh: Bytes,
    scratch: Ints,
    rules: Rules,
    end: int,
    out: Bytes,
) -> int:
    """The symbols before `end`, `at` words being read; how many are then, or more than there are.

    A run that `end` cuts is not learnt from: `decode_range` decodes the rest of it, and does.
    """
    stop = 0
    while stop < end:
        start, stop = stop, run_end(stop, out.size, rules)
        for step in range(start, min(stop, end), states.size):
            needed = 0
            for i in range(step, min(step + states.size, stop, end)):
                row = wide(contexts[i]) if contexts.size else 0
                if not fresh[row]:
                    refresh(row, counts, sums, prior, starts, guide, scratch, rules)
                    fresh[row] = 1
                state = wide(states[i - step])
                slot = state & TOTAL - 1
                symbol = owner(slot, row, starts, guide)
                out[i] = symbol
                first = starts[row, symbol]
                state = (starts[row, symbol + 1] - first) * (state >> PRECISION) + slot - first
                if state < LOW:
                    if at + needed < words.size:
                        state = state << 16 | wide(words[at + needed])
                    needed += 1
                states[i - step] = state
            at += needed
            if at > words.size:
                return at
        if stop <= end:
            learn(out, contexts, start, stop, counts, sums, fresh, rules[4])
    return at


@compiled(INT, readonly(SHORTS), readonly(SHORTS), WORDS, BYTES)
def encode_range(start_of: Shorts, frequency_of: Shorts, words: Words, out: Bytes) -> int:
    """How many bytes of `out` are the number; `words` has 3 places more than symbols, `out` twice as many."""
    low, span, count = 0, FULL, 0
    for i in range(start_of.size):
        share = span >> PRECISION
        low += share * wide(start_of[i])
        span = share * wide(frequency_of[i])
        if span < LEAST:
            words[count] = low >> 32
            count += 1
            low = (low & LEAST - 1) << 16
            span <<= 16
    last = low
    for shift in range(48, -8, -8):
        last = (low + (1 << shift) - 1 >> shift) << shift
        if last < low + span:
            break
    words[count], words[count + 1], words[count + 2] = last >> 32, last >> 16 & 0xFFFF, last & 0xFFFF
    count += 3
    # A word may have overflowed by one bit, which belongs to the word before it.
    carry = 0
    for i in range(count - 1, -1, -1):
        word = wide(words[i]) + carry
        carry = word >> 16
        out[2 * i], out[2 * i + 1] = word >> 8 & 0xFF, word & 0xFF
    size = 2 * count
    while size and not out[size - 1]:
        size -= 1
    return size


@compiled(INT, readonly(SHORTS), readonly(SHORTS), readonly(TABLE), WORDS, SHORTS)
def encode_lanes(start_of: Shorts, frequency_of: Shorts, runs: Ints, states: Words, words: Shorts) -> int:
    """The states in place, and where in `words`, which has a place for each symbol, the words begin."""
    lanes, at = states.size, words.size
    for run in range(runs.shape[0] - 1, -1, -1):
        begin, stop = runs[run, 0], runs[run, 1]
        for i in range(stop - 1, begin - 1, -1):
            # In a step the lanes are independent, and a step has each of them once.
            lane = (i - begin) % lanes
            state, frequency = wide(states[lane]), wide(frequency_of[i])
            if state >> 32 - PRECISION >= frequency:
                at -= 1
                words[at] = state & 0xFFFF
                state >>= 16
            states[lane] = state + state // frequency * (TOTAL - frequency) + wide(start_of[i])
    return at


def folder() -> str:
    """Where numba keeps what it compiled: beside this file, or else where its user's caches are."""
    path: str = modelled.stats.cache_path  # type: ignore[attr-defined]
    return path
