"""The device: client, engine, trainer, gate, outbox, power."""
