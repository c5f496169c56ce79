"""The device: what a program embeds to take part in a fleet.

```python
with Device("pi-3", broker="mqtt://hub", bundle="model.bundle", data=(x, y), store="pi-3.db") as device:
    print(device.predict(x[:1]))
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from laconic.edge_sdk.client import Device
    from laconic.edge_sdk.daemon import device_from_file
    from laconic.edge_sdk.data import ExampleBuffer
    from laconic.edge_sdk.hooks import NewModel, RoundDone, Skipped
    from laconic.edge_sdk.policy import Limits

__all__ = ["Device", "ExampleBuffer", "Limits", "NewModel", "RoundDone", "Skipped", "device_from_file"]

_PLACES = {
    "Device": "client",
    "ExampleBuffer": "data",
    "Limits": "policy",
    "NewModel": "hooks",
    "RoundDone": "hooks",
    "Skipped": "hooks",
    "device_from_file": "daemon",
}


def __getattr__(name: str) -> Any:
    # A simulated device's engine is there without event loop, broker and the machine's sensors.
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"laconic.edge_sdk.{_PLACES[name]}"), name)
