"""Strategies with a server: distillation, mutual learning, averaging, one after another."""
