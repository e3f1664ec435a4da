"""Everything a learner does: data, models, losses, the one training loop, prediction, messages.

The bottom of the house: imports nothing of ours. `strategies/` and `sim/` build on it.
"""

import os

# Flower and Ray read these when they are first imported, and every part of Stillhouse passes
# through this package first: nothing about a run is reported to anyone unless the user says so.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
