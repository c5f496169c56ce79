"""Every error that Laconic raises on purpose.

```
LaconicError
├── ConfigError                what a person wrote in a file, a variable or an argument
├── DataError                  examples to learn from that cannot be used
├── ModelError                 an ONNX model or a training bundle that cannot be used
│   ├── UnsupportedOperator    no gradient rule for a node on the way from a weight to the loss
│   └── CheckpointMismatch     a checkpoint of another training run than the one that is to go on
├── WireError                  bytes from outside are not what the specification says
│   ├── Malformed              wrong magic, length, type or structure
│   ├── ChecksumMismatch       the bytes are not those that were promised
│   ├── LimitExceeded          well formed, but larger than the caller allows
│   ├── UnsupportedVersion     from a version, or with a stage, that this release does not know
│   └── NonFinite              NaN or infinity where a finite number is due
├── ProtocolError              a well-formed message that is not allowed now
│   ├── LocalProtocolError     this program's mistake
│   └── RemoteProtocolError    the other side's mistake
├── StorageError               a file or database that cannot be read or written
│   ├── StoreLocked            another process holds it
│   ├── StoreDamaged           it is not the database that it should be
│   ├── StoreReadOnly          it may be read, but not written
│   └── DiskFull               there is no room for a write
├── TransportError             a broker that cannot be reached
│   └── BrokerRefused          a broker that does not let this client in
└── ClusterError               workers of a simulation that are lost, or not like this machine
```

An error is a value: `thing` names what is wrong, `value` what was found, `limit` what was allowed,
`remedy` the way out. `str(error)` puts the four into one sentence.
"""

from __future__ import annotations

from typing import Final

_VALUE: Final = 120
"""Characters: hostile input must not fill the disk."""
_LIMIT: Final = 1000
"""What is allowed is mostly ours to say; a list of all that may be chosen is of no use cut off."""


class LaconicError(Exception):
    """Base of every error that Laconic raises on purpose."""

    def __init__(self, thing: str, *, value: object = None, limit: object = None, remedy: str = "") -> None:
        self.thing = thing
        self.value = value
        self.limit = limit
        self.remedy = remedy
        parts = [thing]
        if value is not None:
            parts.append(f"found {_short(value, _VALUE)}")
        if limit is not None:
            parts.append(f"allowed {_short(limit, _LIMIT)}")
        text = ", ".join(parts)
        super().__init__(f"{text}; {remedy}" if remedy else text)


def _short(value: object, most: int) -> str:
    """A value as a person can read it in a log line, in `most` characters or fewer."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


class ConfigError(LaconicError):
    """What a person wrote in a file, a variable or an argument cannot be used."""


class DataError(LaconicError):
    """Examples to learn from cannot be used, or the code that gives them failed."""


class ModelError(LaconicError):
    """An ONNX model or a training bundle cannot be used."""


class UnsupportedOperator(ModelError):
    """No gradient rule covers a node on the way from a trainable weight to the loss."""

    def __init__(self, op_type: str, *, domain: str, opset: int, node: str, remedy: str) -> None:
        self.op_type, self.domain, self.opset, self.node = op_type, domain, opset, node
        where = f"{domain or 'ai.onnx'}.{op_type} (opset {opset}) at node {node!r}"
        super().__init__(f"no gradient rule for {where}", remedy=remedy)


class CheckpointMismatch(ModelError):
    """A checkpoint is of another training run than the one that is to go on."""


class WireError(LaconicError):
    """Bytes from outside are not what the specification says."""


class Malformed(WireError):
    """Wrong magic, length, type or structure."""


class ChecksumMismatch(WireError):
    """The bytes are not those that were promised."""


class LimitExceeded(WireError):
    """Well formed, but larger than the caller allows."""


class UnsupportedVersion(WireError):
    """From a version, or with a stage, that this release does not know."""


class NonFinite(WireError):
    """NaN or infinity where a finite number is due."""


class ProtocolError(LaconicError):
    """A well-formed message that is not allowed now."""


class LocalProtocolError(ProtocolError):
    """This program's mistake."""


class RemoteProtocolError(ProtocolError):
    """The other side's mistake."""


class StorageError(LaconicError):
    """A file or database cannot be read or written."""


class StoreLocked(StorageError):
    """Another process holds the store."""


class StoreDamaged(StorageError):
    """The store is not the database that it should be."""


class StoreReadOnly(StorageError):
    """The store may be read, but not written."""


class DiskFull(StorageError):
    """There is no room for a write."""


class TransportError(LaconicError):
    """A broker cannot be reached."""


class BrokerRefused(TransportError):
    """The broker does not let this client in."""


class ClusterError(LaconicError):
    """Workers of a simulation are lost, or would give other results than this machine."""
