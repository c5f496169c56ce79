"""The coordinator: rounds, selection, ledger, fold, model registry, daemon."""
