"""Drift measures: pure functions on answers, features, parameters and trust.

What a probe makes of them is in `sim.analysis.probes`.
"""

from sim.analysis.drift.calibration import Reliability, expected_calibration_error, reliability
from sim.analysis.drift.output import (
    disagreement,
    disagreement_by_client,
    disagreement_matrix,
    entropy,
    jensen_shannon,
    jensen_shannon_matrix,
    kl_from_ensemble,
    kl_to_ensemble,
    squared_distances,
)
from sim.analysis.drift.parameters import (
    Moments,
    consensus_distance,
    cosine_matrix,
    cosine_to_mean,
    gradient_diversity,
    moments,
    total,
)
from sim.analysis.drift.recall import forgetting, lost_recall, recall
from sim.analysis.drift.representation import linear_cka
from sim.analysis.drift.teacher_weights import (
    effective_teachers,
    oracle_correct,
    rank_correlation,
    weight_mass,
    wrong_but_confident,
)

__all__ = [
    "Moments",
    "Reliability",
    "consensus_distance",
    "cosine_matrix",
    "cosine_to_mean",
    "disagreement",
    "disagreement_by_client",
    "disagreement_matrix",
    "effective_teachers",
    "entropy",
    "expected_calibration_error",
    "forgetting",
    "gradient_diversity",
    "jensen_shannon",
    "jensen_shannon_matrix",
    "kl_from_ensemble",
    "kl_to_ensemble",
    "linear_cka",
    "lost_recall",
    "moments",
    "oracle_correct",
    "rank_correlation",
    "recall",
    "reliability",
    "squared_distances",
    "total",
    "weight_mass",
    "wrong_but_confident",
]
