"""The device: what a program embeds to take part in a fleet.

```python
with Device("pi-3", broker="mqtt://hub", bundle="model.bundle", data=(x, y), store="pi-3.db") as device:
    print(device.predict(x[:1]))
```
"""

from laconic.edge_sdk.client import Device
from laconic.edge_sdk.policy import Limits

__all__ = ["Device", "Limits"]
