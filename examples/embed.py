"""A program that takes part in a fleet while it does its own work: `python embed.py NAME [BROKER]`."""

import sys
import time

import numpy as np

from laconic.edge_sdk import Device, Limits

name, broker, *_ = [*sys.argv[1:], "mqtt://127.0.0.1:1883"]
arrays = np.load(f"{name}.npz")
x, y = arrays["x"], arrays["y"]
limits = Limits(min_charge=0.3, only_unmetered=True)

with Device(
    name, broker=broker, bundle="digits.bundle", data=(x, y), store=f"{name}.db", limits=limits
) as device:
    try:
        while True:
            time.sleep(1)  # the program's own work; the device learns in a thread of its own
            right = device.predict(x).argmax(axis=1) == y
            print(f"model version {device.version}: {right.mean():.0%} of my own digits", flush=True)
    except KeyboardInterrupt:
        print("stopping")
