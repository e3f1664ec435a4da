"""Checkpoints: written, read and resumed from, with the bits that the run would have had."""
