"""Whole federated runs in one process, and the updates they make, to measure update codecs on.

```python
task = load("digits")
points = run(task, skew=0.9, seed=0, rounds=30, up=product(small), down=product(small))
```
"""

import os

# numpy reads this when it is first imported: import this package before. A small product is slower with more
# threads where cores are shared: encoding an update of the digits CNN took 385 ms of processor time, and 115.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Compiled kernels from the first update on, not from somewhere within what is measured; 0 measures without.
os.environ.setdefault("LACONIC_NATIVE", "1")
