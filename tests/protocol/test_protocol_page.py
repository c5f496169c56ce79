"""docs/spec/protocol.md says what the code does: its tables, diagram and example are compared with it."""

from __future__ import annotations

import hashlib
import hmac
import re
from pathlib import Path

import msgspec
import msgspec.inspect as mi
import numpy as np
import pytest

from laconic.protocol import chunks, identity, messages
from laconic.protocol.messages import Ack, Fate, Fin, Manifest, Message, Offer, Skip, State, Telemetry, encode
from laconic.schema import Schema, TensorSpec

PAGE = Path(__file__).resolve().parents[2] / "docs" / "spec" / "protocol.md"
KINDS = [
    messages.State,
    messages.Offer,
    messages.Training,
    messages.Gate,
    messages.Feedback,
    messages.Eligibility,
    messages.Allowance,
    messages.Echo,
    messages.Fin,
    messages.Skip,
    messages.Telemetry,
    messages.Ack,
    messages.Folded,
    messages.Manifest,
    messages.Blob,
]


# --- message tables ----------------------------------------------------------------------------------------


def number(value: float) -> str:
    """A bound as a person writes it."""
    if value == 2**48:
        return "2⁴⁸"
    if value == 2**24:
        return "2²⁴"
    if abs(value) == 1e15:
        return "10¹⁵" if value > 0 else "−10¹⁵"
    return f"{value:g}" if isinstance(value, float) else str(value)


def described(t: mi.Type) -> str:
    """A field's type and bounds in words."""
    match t:
        case mi.BoolType():
            return "bool"
        case mi.IntType(ge=low, le=high):
            return f"int {number(low or 0)} to {number(high or 0)}"
        case mi.FloatType(gt=None, ge=low, le=high):
            return f"float {number(low or 0.0)} to {number(high or 0.0)}"
        case mi.FloatType(gt=low, le=high):
            return f"float above {number(low or 0.0)}, to {number(high or 0.0)}"
        case mi.StrType(pattern=str(pattern)):
            return "hash or empty" if ")?" in pattern else "hash"
        case mi.StrType(max_length=most):
            return f"str to {most}"
        case mi.BytesType(min_length=least, max_length=most):
            return f"bin {most}" if least == most else f"bin to {most}"
        case mi.ListType(item_type=item, max_length=most):
            return f"array to {most} of {described(item)}"
        case mi.EnumType(cls=enum):
            return "int: " + ", ".join(f"{m.value} {m.name.lower()}" for m in enum)
        case mi.StructType(cls=struct):
            return f"[{struct.__name__}](#{struct.__name__.lower()})"
        case mi.UnionType(types=types):
            return " or ".join(described(x) if not isinstance(x, mi.NoneType) else "nil" for x in types)
    raise NotImplementedError(t)


def default_of(f: mi.Field) -> str:
    """A field's default as it stands in the table."""
    if f.required:
        return "required"
    value = f.default if f.default is not msgspec.NODEFAULT else f.default_factory()
    match value:
        case None:
            return "nil"
        case bool():
            return str(value).lower()
        case Message():
            return "its defaults"
        case str() | bytes() | list():
            return f"`{value}`" if value and isinstance(value, str) else "empty"
        case _:
            return f"{value:g}"


def table(kind: type[Message]) -> list[tuple[str, str, str, str]]:
    """(position, name, type, default) of each field of a message, from the code."""
    info = mi.type_info(kind)
    assert isinstance(info, mi.StructType)
    return [(str(i), f"`{f.name}`", described(f.type), default_of(f)) for i, f in enumerate(info.fields)]


def table_on_page(kind: type[Message]) -> list[tuple[str, ...]]:
    """The same four columns as they stand on the page, under the message's heading."""
    section = re.search(rf"^### {kind.__name__}\n(.*?)(?=^##)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert section, f"no section on {kind.__name__}"
    rows = [line for line in section[1].splitlines() if re.match(r"\| \d", line)]
    found = [tuple(cell.strip() for cell in row.strip("|").split("|")) for row in rows]
    assert all(len(row) == 5 and row[4] for row in found), "every field has a meaning"
    return [row[:4] for row in found]


@pytest.mark.parametrize("kind", KINDS)
def test_the_fields_on_the_page_are_those_of_the_code(kind: type[Message]) -> None:
    expected = "\n".join(f"| {' | '.join(row)} |" for row in table(kind))
    found = "\n".join(f"| {' | '.join(row)} |" for row in table_on_page(kind))
    assert found == expected, (
        f"docs/spec/protocol.md, {kind.__name__}, should begin its rows with:\n{expected}"
    )


def test_every_message_is_on_the_page() -> None:
    assert {
        *messages._DECODERS,
        messages.Training,
        messages.Gate,
        messages.Feedback,
        messages.Eligibility,
        messages.Allowance,
        messages.Echo,
        messages.Folded,
        messages.Blob,
    } == set(KINDS)


def test_the_limits_on_the_page_are_those_of_the_code() -> None:
    page = PAGE.read_text()
    assert f"{messages.MESSAGE_LIMIT_BYTES:,}".replace(",", " ") + " bytes" in page
    assert f"{chunks.MAX_CHUNK_BYTES:,}".replace(",", " ") + " bytes" in page
    assert f"{chunks.DEFAULT_CHUNK_BYTES:,}".replace(",", " ") + " bytes" in page


# --- the worked example ------------------------------------------------------------------------------------

HASH = "0123456789abcdef"
SCHEMA = Schema((TensorSpec("w", (2,)),))


def example() -> dict[str, str]:
    """The values of the page's worked example, from the code."""
    base = identity.weights_hash(np.array([1.0, -2.0], np.float32), SCHEMA)
    task = identity.task_id("farm", 1, identity.short(base))
    frame = b"frame"
    sha256 = hashlib.sha256(frame).digest()
    fin = Fin(task, identity.short(base), len(frame), 1, sha256, 10)
    key = b"key"
    manifest = Manifest(0, base, HASH, "", None, None, 0)
    signed = identity.sign(manifest, key)
    assert signed.signature == hmac.digest(
        key, encode(msgspec.structs.replace(signed, signature=b"")), "sha256"
    )
    return {
        "schema digest": SCHEMA.digest.hex(),
        "weights hash": base.hex(),
        "model": identity.short(base),
        "task": task,
        "update": identity.update_id("probe-7", task, identity.short(base), sha256),
        "selection": f"{int.from_bytes(identity._digest('probe-7', task)[:6], 'big') / 2**48:.6f}",
        "State": encode(State(True)).hex(),
        "Offer": encode(Offer(task, 1, identity.short(base), 0, HASH)).hex(),
        "Fin": encode(fin).hex(),
        "Skip": encode(Skip(task, identity.short(base), "gate", 10)).hex(),
        "Telemetry": encode(Telemetry(None, False, False, 1, 2, 3.0, 4.0)).hex(),
        "Ack": encode(Ack(HASH, Fate.MISSING, [0, 2])).hex(),
        "Manifest": encode(signed).hex(),
    }


def test_the_worked_example_on_the_page_is_right() -> None:
    rows = dict(re.findall(r"^\| ([\w ]+) \| `([0-9a-f.]+)` \|$", PAGE.read_text(), re.MULTILINE))
    expected = example()
    text = "\n".join(f"| {name} | `{value}` |" for name, value in expected.items())
    assert {name: rows.get(name) for name in expected} == expected, (
        f"docs/spec/protocol.md should hold:\n{text}"
    )
