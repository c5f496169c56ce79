"""Whole federated runs in one process, and the updates they make, to measure update codecs on."""
