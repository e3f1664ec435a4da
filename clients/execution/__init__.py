"""Execution: networks that stay in a process and take in client after client, alone or batched."""
