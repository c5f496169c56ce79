"""Federated learning for devices that pay for every joule and every byte."""

__version__ = "0.1.0"
