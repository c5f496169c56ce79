"""Update codecs: dense vectors to few bytes and back, error feedback, the gate.

```python
frame = encode(target, schema, PRESETS["small"], rng).frame
sent = decode(frame, schema, limit_bytes=64_000_000)
residual = commit(target, sent)
```
"""

from laconic.compression.decoder import decode, pieces
from laconic.compression.encoder import Encoded, encode
from laconic.compression.feedback import cap, carry, commit, no_residual, norm
from laconic.compression.gate import GateDecision, GateMode, GateSettings, GateState, decide
from laconic.compression.inspection import FrameInfo, SectionInfo, entropies, inspect
from laconic.compression.piece import Given, Piece, whole
from laconic.compression.settings import PRESETS, CodecSettings, Kind

__all__ = [
    "PRESETS",
    "CodecSettings",
    "Encoded",
    "FrameInfo",
    "GateDecision",
    "GateMode",
    "GateSettings",
    "GateState",
    "Given",
    "Kind",
    "Piece",
    "SectionInfo",
    "cap",
    "carry",
    "commit",
    "decide",
    "decode",
    "encode",
    "entropies",
    "inspect",
    "no_residual",
    "norm",
    "pieces",
    "whole",
]
