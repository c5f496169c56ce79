"""Scenarios: a fleet as one TOML file, run in the world with the production engines."""
