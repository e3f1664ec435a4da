"""Measurements. Each compares with a rival or a floor in the same run; none is a test."""
