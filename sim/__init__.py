"""What carries a federation: worker pools, the Flower grid over them, the round loop, tracking."""
