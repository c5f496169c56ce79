"""Real data for scenarios: read from a folder, and fetched into it where they lack.

docs/datasets.md has what is read, from where, and under which terms.
"""
