"""Adaptive coding of small symbols: both sides learn the frequencies as they go, and no table travels.

Symbols are coded in runs that grow with what has been coded; the frequencies of a run follow, by integer
rules alone, from the symbols of all runs before it. A symbol may have a *context*, which the decoder must
know beforehand (from streams decoded earlier); each context has frequencies of its own.

The loops over symbols have compiled twins (`laconic.compression.native`), which give the same.

Streams can share one body (`encode_streams`, `StreamDecoder`): then only the last costs an end and a length.

```python
body = encode(symbols, None, alphabet=16)
same = decode(body, None, symbols.size, alphabet=16)
```
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from laconic.compression import native, range_coder, rans
from laconic.compression.bits import Codes
from laconic.compression.frequencies import Frequencies, Model, first_slots
from laconic.compression.range_coder import PRECISION, RangeDecoder, slot_table
from laconic.compression.rans import LaneDecoder, Slots
from laconic.compression.wire import Reader, varint
from laconic.errors import Malformed

FIRST_RUN = 4
LONGEST_RUN = 2048

FREE_SYMBOLS = 1 << 17
SYMBOLS_A_BYTE = 64

MAX_PRIOR = 1 << 20
"""The largest weight of a symbol in a prior: no product of weights leaves 64 bits."""

BARE_BYTES = 512
"""Up to this many bytes a body is range coded, and no byte says so."""


@dataclass(frozen=True, slots=True)
class SymbolStream:
    """Symbols to be coded: uint8, shape `(count,)`, below `alphabet` (1 to 256).

    `contexts`: uint8, shape `(count,)`, below `contexts_count` (1 to 256), or None where all are 0.
    `prior`: weights of the symbols (1 to `MAX_PRIOR`) from which the first frequencies follow, context after
    context, `contexts_count * alphabet` of them; in the background 512 weigh as much as a symbol that came.
    None for weights that fall by a quarter from symbol to symbol.
    """

    symbols: Codes
    contexts: Codes | None
    alphabet: int
    contexts_count: int = 1
    prior: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        _check_sizes(self.symbols.size, self.contexts, self.alphabet, self.contexts_count, self.prior)
        if self.symbols.size and int(self.symbols.max()) >= self.alphabet:
            raise ValueError(f"symbol {int(self.symbols.max())} of an alphabet of {self.alphabet}")


def affordable(symbols: int, coded: int) -> bool:
    """False for more symbols than a stage lets `coded` bytes stand for: bounds a decoder's time by the frame.

    An eighth of a bit a symbol is far below what real updates need; the first 131,072 symbols are free.
    """
    return symbols <= FREE_SYMBOLS + SYMBOLS_A_BYTE * coded


def encode(symbols: Codes, contexts: Codes | None, *, alphabet: int, contexts_count: int = 1) -> bytes:
    """One stream to bytes, their number left to the caller; see `SymbolStream`.

    Raises `ValueError` for symbols or contexts that are out of range.
    """
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


def stream_cost_bits(stream: SymbolStream) -> float:
    """Bits that a stream adds to a body, to about 8 and 1 %, without coding."""
    return _bits(_modelled(stream)[1])


def _bits(frequencies: Slots) -> float:
    return float(PRECISION * frequencies.size - np.log2(frequencies).sum())


def encode_streams(streams: Sequence[SymbolStream]) -> bytes:
    """Several streams to one body; the decoder asks for them in the same order."""
    if not any(s.symbols.size for s in streams):
        return b""
    modelled = [_modelled(s) for s in streams]
    start, frequency = np.concatenate([s for s, _ in modelled]), np.concatenate([f for _, f in modelled])
    lanes = lanes_for(_bits(frequency))
    if lanes > 1:
        first, cargo = _end_for(start, frequency, 2 * lanes)
        ends = np.cumsum([f.size for _, f in modelled]).tolist()
        runs = [
            (e - f.size + a, e - f.size + b)
            for e, (_, f) in zip(ends, modelled, strict=True)
            for a, b in runs_of(f.size)
        ]
        runs = [(a, min(b, first)) for a, b in runs if a < first]
        body = bytes([lanes.bit_length() - 1]) + varint(first)
        body += rans.encode(start[:first], frequency[:first], runs, lanes, cargo)
        if len(body) > BARE_BYTES:
            return body
    body = _number(start, frequency)
    return body if len(body) <= BARE_BYTES else b"\0" + body


def _end_for(start: Slots, frequency: Slots, limit_bytes: int) -> tuple[int, bytes]:
    """How many symbols lanes code, and the range-coded rest: what `limit_bytes` hold, a quarter at most."""
    rest = frequency[-(frequency.size // 4) :][::-1]
    bits = np.cumsum(PRECISION - np.log2(rest))
    first = frequency.size - int(np.searchsorted(bits, 8 * limit_bytes - 8))
    return first, _number(start[first:], frequency[first:])


def _number(start: Slots, frequency: Slots) -> bytes:
    if native.ready(start.size):
        from laconic.compression.native.streams import encode_range

        return encode_range(start, frequency)
    return range_coder.encode(start.tolist(), frequency.tolist())


@dataclass(slots=True)
class StreamDecoder:
    """Decodes the streams of one body in their order: `symbols` for each, then `finish`."""

    data: bytes | memoryview
    _range: RangeDecoder | None = field(init=False, default=None)
    _lanes: LaneDecoder | None = field(init=False, default=None)
    _left: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        reader = Reader(memoryview(self.data))
        lanes_log2 = 0
        if reader.left > BARE_BYTES:
            lanes_log2 = reader.byte("lanes of coded symbols")
            if lanes_log2 > rans.MAX_LANES_LOG2:
                raise Malformed("lanes of coded symbols", value=lanes_log2, limit=rans.MAX_LANES_LOG2)
            if not lanes_log2 and reader.left == BARE_BYTES:
                raise Malformed("length of coded symbols", value=BARE_BYTES, limit="no byte for the lanes")
        if lanes_log2:
            self._left = reader.varint("symbols in lanes")
            self._lanes = LaneDecoder(reader.take(reader.left, "coded symbols"), 1 << lanes_log2)
        else:
            self._range = RangeDecoder(reader.take(reader.left, "coded symbols"))

    def symbols(
        self,
        contexts: Codes | None,
        count: int,
        *,
        alphabet: int,
        contexts_count: int = 1,
        prior: tuple[int, ...] | None = None,
    ) -> Codes:
        """The next stream: uint8, shape `(count,)`, each below `alphabet`. Raises `Malformed`."""
        _check_sizes(count, contexts, alphabet, contexts_count, prior)
        out = np.empty(count, np.uint8)
        model = Model(alphabet, contexts_count, prior)
        if native.ready(count):
            self._natively(model, contexts, out)
            return out
        for a, b in runs_of(count):
            which = None if contexts is None else contexts[a:b]
            self._run(model.frequencies(), which, out[a:b])
            model.learn(out[a:b], which)
        return out

    def finish(self) -> None:
        """Check that nothing is left. Raises `Malformed`."""
        if self._left:
            raise Malformed("symbols in lanes", value=self._left, limit=0)
        self._rest().finish()

    def _natively(self, model: Model, contexts: Codes | None, out: Codes) -> None:
        from laconic.compression.native.streams import native_model

        decoding = native_model(model, contexts, (FIRST_RUN, LONGEST_RUN))
        in_lanes = min(self._left, out.size)
        if in_lanes and self._lanes is not None:
            self._lanes.decode_natively(decoding, in_lanes, out)
            self._left -= in_lanes
        if in_lanes < out.size:
            self._rest().decode_natively(decoding, in_lanes, out)

    def _run(self, frequencies: Frequencies, contexts: Codes | None, out: Codes) -> None:
        starts = first_slots(frequencies)
        in_lanes = min(self._left, out.size)
        if in_lanes and self._lanes is not None:
            first = None if contexts is None else contexts[:in_lanes]
            self._lanes.decode(starts, frequencies, first, out[:in_lanes])
            self._left -= in_lanes
        if in_lanes < out.size:
            rows = None if contexts is None else contexts[in_lanes:].tolist()
            used = (0,) if rows is None else set(rows)
            tables = {c: slot_table(starts[c].tolist(), frequencies[c].tolist()) for c in used}
            plain = self._rest().decode(tables, rows, out.size - in_lanes)
            out[in_lanes:] = np.frombuffer(plain, np.uint8)

    def _rest(self) -> RangeDecoder:
        """What is not in lanes: all of a short body; the cargo of the lanes, once they have ended."""
        if self._range is None:
            assert self._lanes is not None
            self._range = RangeDecoder(memoryview(self._lanes.finish().rstrip(b"\0")))
        return self._range


def runs_of(count: int) -> Iterator[tuple[int, int]]:
    """Bounds of the runs of a stream: a quarter of what came before, at least 4 symbols and at most 2048."""
    start = 0
    while start < count:
        stop = min(start + min(max(start // 4, FIRST_RUN), LONGEST_RUN), count)
        yield start, stop
        start = stop


def lanes_for(bits: float) -> int:
    """The encoder's choice for a body of `bits`: lanes cost about half a byte each, at most 1/160 here.

    Below 64 lanes a NumPy step is slower than plain integers.
    """
    lanes = 1 << max(int(bits / 8 / 80), 1).bit_length() - 1
    return 1 if lanes < 64 else min(lanes, 1024)


def _modelled(stream: SymbolStream) -> tuple[Slots, Slots]:
    """Start and frequency of each symbol under the frequencies of its run."""
    count = stream.symbols.size
    model = Model(stream.alphabet, stream.contexts_count, stream.prior)
    if native.ready(count):
        from laconic.compression.native.streams import native_model

        return native_model(model, stream.contexts, (FIRST_RUN, LONGEST_RUN)).modelled(stream.symbols)
    starts, frequencies = np.empty(count, np.uint16), np.empty(count, np.uint16)
    for a, b in runs_of(count):
        symbols = stream.symbols[a:b]
        contexts = None if stream.contexts is None else stream.contexts[a:b]
        index = symbols if contexts is None else contexts.astype(np.int64) * stream.alphabet + symbols
        table = model.frequencies()
        frequencies[a:b] = table.ravel()[index]
        starts[a:b] = first_slots(table).ravel()[index]
        model.learn(symbols, contexts)
    return starts, frequencies


def _check_sizes(
    count: int, contexts: Codes | None, alphabet: int, contexts_count: int, prior: tuple[int, ...] | None
) -> None:
    if not 1 <= alphabet <= 256 or not 1 <= contexts_count <= 256:
        raise ValueError(f"{alphabet} symbols, {contexts_count} contexts: 1 to 256 of each")
    if contexts is not None:
        if contexts.shape != (count,):
            raise ValueError(f"{contexts.shape} contexts of {count} symbols")
        if count and int(contexts.max()) >= contexts_count:
            raise ValueError(f"context {int(contexts.max())} of {contexts_count}")
    if prior is not None:
        if len(prior) != contexts_count * alphabet:
            raise ValueError(f"{len(prior)} weights of {contexts_count} times {alphabet} symbols")
        if not 1 <= min(prior) <= max(prior) <= MAX_PRIOR:
            raise ValueError(f"weights from {min(prior)} to {max(prior)}: 1 to {MAX_PRIOR}")
