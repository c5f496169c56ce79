"""Adaptive coding of small symbols: the tables are learnt on both sides, so that none travels.

Symbols are coded in runs that grow with what has been coded; the frequencies of a run follow, by integer rules alone,
from the symbols of all runs before it. Each symbol may have a *context*, which the decoder must know beforehand (from
streams decoded earlier); each context has its own frequencies, which start from those of all contexts together.

Several streams can share one body (`encode_streams`, `StreamDecoder`): the second costs no start, no end and no length.

```python
body = encode(symbols, None, alphabet=16, contexts_count=1)
same = decode(body, None, symbols.size, alphabet=16, contexts_count=1)
```
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from laconic.compression import rans
from laconic.compression.bits import Codes
from laconic.compression.rans import PRECISION, TOTAL
from laconic.errors import Malformed

FIRST_RUN = 8
LONGEST_RUN = 8192
INCREMENT = 32
BACKGROUND = 48
CEILING = 4096


@dataclass(frozen=True, slots=True)
class SymbolStream:
    """Symbols to be coded: uint8, shape `(count,)`, below `alphabet` (1 to 256).

    `contexts`: uint8, shape `(count,)`, below `contexts_count` (1 to 256), or None where all are 0.
    """

    symbols: Codes
    contexts: Codes | None
    alphabet: int
    contexts_count: int = 1

    def __post_init__(self) -> None:
        _check_sizes(self.symbols.size, self.contexts, self.alphabet, self.contexts_count)
        if self.symbols.size and int(self.symbols.max()) >= self.alphabet:
            raise ValueError(f"symbol {int(self.symbols.max())} of an alphabet of {self.alphabet}")


def encode(symbols: Codes, contexts: Codes | None, *, alphabet: int, contexts_count: int = 1) -> bytes:
    """One stream to bytes, without its length; see `SymbolStream`. Raises `ValueError` for what is out of range."""
    return encode_streams([SymbolStream(symbols, contexts, alphabet, contexts_count)])


def decode(
    data: bytes | memoryview, contexts: Codes | None, count: int, *, alphabet: int, contexts_count: int = 1
) -> Codes:
    """The inverse of `encode`: uint8, shape `(count,)`. `data` is the whole body and nothing else.

    Memory is a few bytes a symbol beside the tables, `contexts_count` times 16 KiB. Raises `Malformed`.
    """
    decoder = StreamDecoder(data)
    symbols = decoder.symbols(contexts, count, alphabet=alphabet, contexts_count=contexts_count)
    decoder.finish()
    return symbols


def cost_bits(symbols: Codes, contexts: Codes | None, *, alphabet: int, contexts_count: int = 1) -> float:
    """Bits that `encode` needs, to about 8 and 1 %, without coding."""
    return stream_cost_bits(SymbolStream(symbols, contexts, alphabet, contexts_count))


def stream_cost_bits(stream: SymbolStream) -> float:
    """Bits that a stream adds to a body."""
    frequencies = _modelled(stream)[1]
    return float(PRECISION * frequencies.size - np.log2(frequencies).sum())


def encode_streams(streams: Sequence[SymbolStream]) -> bytes:
    """Several streams to one body; the decoder asks for them in the same order."""
    starts, frequencies, runs, at = [], [], [], 0
    for stream in streams:
        s, f = _modelled(stream)
        starts.append(s)
        frequencies.append(f)
        runs += [(at + a, at + b) for a, b in runs_of(f.size)]
        at += f.size
    if not at:
        return b""
    f = np.concatenate(frequencies)
    bits = PRECISION * f.size - float(np.log2(f).sum())
    return rans.encode(np.concatenate(starts), f, runs, lanes_for(bits, at))


@dataclass(slots=True)
class StreamDecoder:
    """Decodes the streams of one body in their order: `symbols` for each, then `finish`."""

    data: bytes | memoryview
    _coder: rans.Decoder = field(init=False)

    def __post_init__(self) -> None:
        self._coder = rans.Decoder(memoryview(self.data))

    def symbols(self, contexts: Codes | None, count: int, *, alphabet: int, contexts_count: int = 1) -> Codes:
        """The next stream: uint8, shape `(count,)`, each below `alphabet`. Raises `Malformed`."""
        _check_sizes(count, contexts, alphabet, contexts_count)
        out = np.empty(count, np.uint8)
        model = _Model(alphabet, contexts_count)
        for a, b in runs_of(count):
            which = None if contexts is None else contexts[a:b]
            self._coder.run(model.table(), which, out[a:b])
            model.learn(out[a:b], which)
        return out

    def finish(self) -> None:
        """Check that nothing is left. Raises `Malformed`."""
        self._coder.finish()


def runs_of(count: int) -> Iterator[tuple[int, int]]:
    """Bounds of the runs of a stream: 8 symbols, then half as many as came before, 8 at least and 8192 at most."""
    start = 0
    while start < count:
        stop = min(start + min(max(start // 2, FIRST_RUN), LONGEST_RUN), count)
        yield start, stop
        start = stop


def lanes_for(bits: float, count: int) -> int:
    """The encoder's choice: lanes cost about 3 bytes each and earn speed; below 8 they earn none."""
    lanes = 1 << max(int(bits / 8 / 400), 1).bit_length() - 1
    return 1 if lanes < 8 else min(lanes, 1 << 10)


class _Model:
    """Counts of symbols by context, and the tables that follow from them."""

    def __init__(self, alphabet: int, contexts_count: int) -> None:
        self.alphabet, self.contexts_count = alphabet, contexts_count
        self.counts = np.zeros((contexts_count, alphabet), np.int64)

    def learn(self, symbols: Codes, contexts: Codes | None) -> None:
        index = symbols if contexts is None else contexts.astype(np.int64) * self.alphabet + symbols
        seen = np.bincount(index, minlength=self.counts.size).reshape(self.counts.shape)
        self.counts += seen
        heavy = self.counts.sum(axis=1) > CEILING
        if heavy.any():
            self.counts[heavy] = (self.counts[heavy] + 1) >> 1

    def table(self) -> rans.Table:
        weights = INCREMENT * self.counts + 16
        f = normalised(weights)
        starts = np.cumsum(f, axis=1) - f
        return rans.Table(f, starts)


def normalised(weights: NDArray[np.int64]) -> NDArray[np.int64]:
    """Frequencies in the ratio of positive `weights`, shape `(contexts, alphabet)`: at least 1, 16384 in each row."""
    alphabet = weights.shape[1]
    f = weights * (TOTAL - alphabet) // weights.sum(axis=1, keepdims=True) + 1
    rows = np.arange(weights.shape[0])
    f[rows, weights.argmax(axis=1)] += TOTAL - f.sum(axis=1)
    return f


def _modelled(stream: SymbolStream) -> tuple[rans.Frequencies, rans.Frequencies]:
    """Start and frequency of each symbol under the tables of its run."""
    n = stream.symbols.size
    starts, frequencies = np.empty(n, np.uint16), np.empty(n, np.uint16)
    model = _Model(stream.alphabet, stream.contexts_count)
    for a, b in runs_of(n):
        symbols = stream.symbols[a:b]
        contexts = None if stream.contexts is None else stream.contexts[a:b]
        table = model.table()
        index = symbols if contexts is None else contexts.astype(np.int64) * stream.alphabet + symbols
        starts[a:b] = table.starts.ravel()[index]
        frequencies[a:b] = table.frequencies.ravel()[index]
        model.learn(symbols, contexts)
    return starts, frequencies


def _check_sizes(count: int, contexts: Codes | None, alphabet: int, contexts_count: int) -> None:
    if not 1 <= alphabet <= 256 or not 1 <= contexts_count <= 256:
        raise ValueError(f"{alphabet} symbols, {contexts_count} contexts: 1 to 256 of each")
    if contexts is not None:
        if contexts.shape != (count,):
            raise ValueError(f"{contexts.shape} contexts of {count} symbols")
        if count and int(contexts.max()) >= contexts_count:
            raise ValueError(f"context {int(contexts.max())} of {contexts_count}")
