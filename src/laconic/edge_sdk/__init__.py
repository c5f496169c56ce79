"""The device: what a program embeds to take part in a fleet.

```python
with Device("pi-3", broker="mqtt://hub", bundle="model.bundle", data=(x, y), store="pi-3.db") as device:
    print(device.predict(x[:1]))
```
"""

from laconic.edge_sdk.client import Device
from laconic.edge_sdk.daemon import device_from_file
from laconic.edge_sdk.data import ExampleBuffer
from laconic.edge_sdk.hooks import NewModel, RoundDone, Skipped
from laconic.edge_sdk.policy import Limits

__all__ = ["Device", "ExampleBuffer", "Limits", "NewModel", "RoundDone", "Skipped", "device_from_file"]
