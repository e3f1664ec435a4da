"""Aggregation: scores, weights and combiners of answers, and weighted means of parameters."""
