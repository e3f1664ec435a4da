"""BlazeFL in an environment of its own: see `__main__.py`."""
