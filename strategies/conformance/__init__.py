"""Conformance kit: whether a user's function keeps the contract of the point where it goes in."""
