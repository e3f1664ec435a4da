"""The engine: the round loop, Flower's grid over a pool, grouping, the virtual clock, payloads."""
