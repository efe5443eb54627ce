"""Hosted models: one file per provider, found by its name (``saas/<name>``)."""
