"""What carries a federation: worker pools, the Flower grid over them, the round loop, tracking."""

import clients  # noqa: F401  switches usage reporting off before Flower or Ray is imported
