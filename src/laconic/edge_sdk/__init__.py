"""The device: what a program embeds to take part in a fleet.

```python
with Device("greenhouse-3", broker="mqtt://hub.local", bundle="model.bundle", data=(x, y), store="state.db") as d:
    print(d.predict(x[:1]))
```
"""

from laconic.edge_sdk.client import Device
from laconic.edge_sdk.policy import Limits

__all__ = ["Device", "Limits"]
