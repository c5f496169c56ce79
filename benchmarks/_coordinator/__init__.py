"""The coordinator under load, under attack, with stragglers and budgets: the parts of its benchmark."""
