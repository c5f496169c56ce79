"""Readers of a real device's battery, power, network, temperature and load; `Machine` puts them together."""

from laconic.edge_sdk.readers.detect import detect
from laconic.edge_sdk.readers.machine import Machine
from laconic.edge_sdk.readers.plugins import load
from laconic.edge_sdk.readers.probe import probe
from laconic.edge_sdk.readers.sample import Reader, Sample

__all__ = ["Machine", "Reader", "Sample", "detect", "load", "probe"]
