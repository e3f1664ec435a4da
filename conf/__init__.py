"""The configuration: YAML by group, and `schema.py` for names, types and ranges."""
