"""A second decoder, written from docs/spec/update-frame.md alone: slow, plain, and trusting its input."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import zstandard
from spec_grid import grid
from spec_low_rank import low_rank
from spec_multiples import multiples


class Frame:
    """Reads a frame from its beginning to its end."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def bytes(self, count: int) -> bytes:
        self.at += count
        assert self.at <= len(self.data)
        return self.data[self.at - count : self.at]

    def u8(self) -> int:
        return self.bytes(1)[0]

    def varint(self) -> int:
        number = shift = 0
        while True:
            byte = self.u8()
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return number

    def u64(self) -> int:
        return int.from_bytes(self.bytes(8), "little")

    def f32(self) -> float:
        return struct.unpack("<f", self.bytes(4))[0]

    def vector(self, sizes: Sequence[int]) -> list[float]:
        assert self.bytes(3) == b"LUF"
        version, flags = self.bytes(2)
        assert version in (1, 2)
        assert flags == 0
        self.bytes(8)
        assert self.varint() == len(sizes)
        bitmap = self.bytes((len(sizes) + 7) // 8) if version == 2 else bytes((len(sizes) + 7) // 8)
        pool = [i for i in range(len(sizes)) if bitmap[i // 8] >> i % 8 & 1]
        tensors: dict[int, list[float]] = {}
        for section in [pool] * bool(pool) + [[i] for i in range(len(sizes)) if i not in pool]:
            values = sum(sizes[i] for i in section)
            assert self.varint() == values
            decoded = self.tensor(values)
            for i in section:
                tensors[i], decoded = decoded[: sizes[i]], decoded[sizes[i] :]
        out = [value for i in range(len(sizes)) for value in tensors[i]]
        assert self.bytes(4) == zlib.crc32(self.data[:-4]).to_bytes(4, "little")
        assert self.at == len(self.data)
        return out

    def tensor(self, size: int) -> list[float]:
        transform = self.u8()
        if transform == 0x01:
            return [0.0] * size
        if transform == 0x02:
            return self.quantised(size)
        if transform == 0x04:
            return grid(self, size, Body)
        if transform == 0x05:
            return low_rank(self, size, Body)
        if transform == 0x07:
            return multiples(self, size, Body)
        assert transform in (0x03, 0x06)
        kept = self.varint()
        positions = self.positions(size, kept) if transform == 0x03 else support(self.u64(), size, kept)
        out = [0.0] * size
        for position, value in zip(positions, self.quantised(kept), strict=True):
            out[position] = value
        return out

    def quantised(self, count: int) -> list[float]:
        quantiser = self.u8()
        if quantiser == 0x10:
            return [self.f32() for _ in range(count)]
        if quantiser == 0x11:
            bits = self.u8()
            scale = self.f32()
            codes = self.codes(count, bits)
            if bits == 1:
                return [rounded((2 * c - 1) * scale) for c in codes]
            top = 2 ** (bits - 1) - 1
            return [rounded((c - top) * scale) for c in codes]
        if quantiser == 0x14:
            return self.rotated(count)
        if quantiser == 0x15:
            planes = zip(*(self.codes(count, 8) for _ in range(4)), strict=True)
            turned = (int.from_bytes(codes, "big") for codes in planes)
            return [struct.unpack("<f", struct.pack("<I", t >> 1 | (t & 1) << 31))[0] for t in turned]
        assert quantiser == 0x12
        scale, rungs = self.f32(), self.u8()
        listed = [struct.unpack("<H", self.bytes(2))[0] for _ in range(min(rungs, 8))]
        signs = self.codes(count, 1)
        width = (rungs - 1).bit_length()
        levels = self.codes(count, width) if width else [0] * count
        whole = [listed[i] if i < 8 else listed[7] + 256 * (i - 7) for i in levels]
        # A product of a 24-bit integer and a binary32 is exact in a double: rounding happens once.
        return [rounded(m * scale) * (-1 if s else 1) for m, s in zip(whole, signs, strict=True)]

    def rotated(self, count: int) -> list[float]:
        bits, h, rounds, seed = self.u8(), self.u8(), self.u8(), self.u64()
        d = 1 << h
        n = -(-count // d)
        scales = [self.f32() for _ in range(n)]
        up = {1: [1], 2: [3, 10], 3: [3, 9, 16, 26], 4: [3, 9, 15, 22, 29, 37, 48, 63]}[bits]
        levels = [-u for u in reversed(up)] + up
        x = [levels[c] for c in self.codes(n * d, bits)]
        for i in reversed(range(rounds)):
            for b in range(n):
                x[b * d : b * d + d] = hadamard(x[b * d : b * d + d])
            for s in range(n * d):
                at = i * n * d + s
                if word(seed, at // 64) >> at % 64 & 1:
                    x[s] = -x[s]
        return [rounded(x[j] * scales[j // d]) + 0.0 for j in range(count)]

    def positions(self, values: int, kept: int) -> list[int]:
        coder = self.u8()
        if coder == 0x20:
            return [i for i, bit in enumerate(self.codes(values, 1)) if bit]
        gaps, gap = [], 0
        if coder == 0x21:
            for code in self.codes(self.varint(), 8):
                gap += code
                if code < 255:
                    gaps.append(gap)
                    gap = 0
        else:
            assert coder == 0x22
            shift, length = self.u8(), self.varint()
            for bit in unpacked(self.bytes((length + 7) // 8), length, 1):
                gap += 1 - bit
                if bit:
                    gaps.append(gap << shift)
                    gap = 0
            low = unpacked(self.bytes((kept * shift + 7) // 8), kept, shift)
            gaps = [g + b for g, b in zip(gaps, low, strict=True)]
        positions, last = [], -1
        for g in gaps:
            last += g + 1
            positions.append(last)
        return positions

    def codes(self, count: int, width: int) -> list[int]:
        coder, size = self.u8(), (count * width + 7) // 8
        if coder == 0x30:
            return list(self.bytes(count))
        if coder == 0x31:
            return unpacked(self.bytes(size), count, width)
        if coder == 0x34:
            body = Body(self.bytes(self.varint()))
            symbols = body.stream([0] * count, 2**width, 1)
            body.end()
            return symbols
        plain = zstandard.ZstdDecompressor().decompress(b"\x28\xb5\x2f\xfd" + self.bytes(self.varint()))
        if coder == 0x32:
            return list(plain)
        assert coder == 0x33
        return unpacked(plain, count, width)


def word(seed: int, i: int) -> int:
    whole = (1 << 64) - 1
    z = seed + (i + 1) * 0x9E3779B97F4A7C15 & whole
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & whole
    z = (z ^ z >> 27) * 0x94D049BB133111EB & whole
    return z ^ z >> 31


def support(seed: int, values: int, kept: int) -> list[int]:
    w = (values - 1).bit_length()
    m = (1 << w) - 1
    taken: list[int] = []
    t = 0
    while len(taken) < kept:
        x = t
        for r in range(4):
            x ^= word(seed, 2 * r) & m
            x = x * (word(seed, 2 * r + 1) | 1) & m
            x ^= x >> (w + 1) // 2
        t += 1
        if x < values:
            taken.append((x + word(seed, 8) % values) % values)
    return sorted(taken)


def hadamard(x: list[int]) -> list[int]:
    if len(x) == 1:
        return x
    half = len(x) // 2
    low, high = hadamard(x[:half]), hadamard(x[half:])
    return [a + b for a, b in zip(low, high, strict=True)] + [a - b for a, b in zip(low, high, strict=True)]


class Number:
    """A fraction, most significant byte first."""

    def __init__(self, data: bytes) -> None:
        self.data, self.read, self.range = data, 6, 2**48
        self.code = int.from_bytes(data[:6].ljust(6, b"\0"), "big")

    def symbol(self, f: list[int]) -> int:
        share = self.range // 16384
        s, start = owner(f, self.code // share)
        self.code -= share * start
        self.range = share * f[s]
        if self.range < 2**32:
            self.range *= 65536
            self.code = self.code * 65536 + int.from_bytes(
                self.data[self.read : self.read + 2].ljust(2, b"\0"), "big"
            )
            self.read += 2
        return s

    def end(self) -> None:
        if self.data:
            unit = 256 ** (self.read - len(self.data))
            assert self.data[-1]
            assert self.code < unit
            assert self.code + (256 - self.data[-1]) * unit >= self.range


class Body:
    """An adaptive body, stream after stream."""

    def __init__(self, data: bytes) -> None:
        self.first, self.states, self.number = 0, [], None
        if len(data) <= 512:
            self.number = Number(data)
        elif data[0] == 0:
            assert len(data) > 513
            self.number = Number(data[1:])
        else:
            frame = Frame(data)
            lanes = 2 ** frame.u8()
            self.first = frame.varint()
            sizes = [16 + z for z in unpacked(frame.bytes(lanes // 2), lanes, 4)]
            bits = int.from_bytes(frame.bytes((sum(sizes) + 7) // 8), "little")
            for size in sizes:
                self.states.append(2**size + bits % 2**size)
                bits //= 2**size
            assert not bits
            self.words = frame

    def stream(
        self, contexts: list[int], alphabet: int, contexts_count: int, prior: list[list[int]] | None = None
    ) -> list[int]:
        background = sum(map(sum, prior)) // contexts_count // 128 if prior else 24 * alphabet
        n = [[0] * alphabet for _ in range(contexts_count)]
        out: list[int] = []
        while len(out) < len(contexts):
            size = min(max(len(out) // 4, 4), 2048)
            run = contexts[len(out) : len(out) + size]
            f = {c: frequencies(n[c], prior[c] if prior else None, background) for c in set(run)}
            symbols = self.run([f[c] for c in run])
            for c, s in zip(run, symbols, strict=True):
                n[c][s] += 1
            for c in range(contexts_count):
                if sum(n[c]) > 1024 + 64 * alphabet:
                    n[c] = [x // 2 for x in n[c]]
            out += symbols
        return out

    def run(self, f: list[list[int]]) -> list[int]:
        out: list[int] = []
        in_lanes = min(self.first, len(f))
        self.first -= in_lanes
        while len(out) < in_lanes:
            step = f[len(out) : min(len(out) + len(self.states), in_lanes)]
            for lane, f_lane in enumerate(step):
                high, slot = divmod(self.states[lane], 16384)
                s, start = owner(f_lane, slot)
                self.states[lane] = f_lane[s] * high + slot - start
                out.append(s)
            for lane in range(len(step)):
                if self.states[lane] < 65536:
                    word = int.from_bytes(self.words.bytes(2), "little")
                    self.states[lane] = self.states[lane] * 65536 + word
        return out + [self.rest().symbol(f_symbol) for f_symbol in f[in_lanes:]]

    def rest(self) -> Number:
        if self.number is None:
            assert self.first == 0
            assert self.words.at == len(self.words.data)
            cargo = b"".join((state - 65536).to_bytes(2, "little") for state in self.states)
            self.number = Number(cargo.rstrip(b"\0"))
        return self.number

    def end(self) -> None:
        self.rest().end()


def smooth(w: list[int]) -> list[int]:
    wide = [w[0], *w, w[-1]]
    return [wide[s] + 2 * wide[s + 1] + wide[s + 2] for s in range(len(w))]


def frequencies(n: list[int], prior: list[int] | None, background: int) -> list[int]:
    """Of one context, from its counts."""
    alphabet = len(n)
    if prior is None:
        falling = [32]
        while len(falling) < alphabet:
            falling.append(max(falling[-1] * 3 // 4, 2))
        prior = smooth(smooth(falling))
    near = [a + b for a, b in zip(smooth(smooth([32 * x for x in n])), prior, strict=True)]
    weight = [32 * n[s] + near[s] * background // sum(near) + 1 for s in range(alphabet)]
    f = [w * (16384 - alphabet) // sum(weight) + 1 for w in weight]
    f[weight.index(max(weight))] += 16384 - sum(f)
    return f


def owner(f: list[int], slot: int) -> tuple[int, int]:
    """The symbol that owns a slot, and its first slot."""
    start = 0
    for s, size in enumerate(f):
        if slot < start + size:
            return s, start
        start += size
    raise AssertionError(slot)


def unpacked(data: bytes, count: int, width: int) -> list[int]:
    whole = int.from_bytes(data, "little")
    return [whole >> i * width & (1 << width) - 1 for i in range(count)]


def rounded(number: float) -> float:
    """To binary32."""
    return struct.unpack("<f", struct.pack("<f", number))[0]
