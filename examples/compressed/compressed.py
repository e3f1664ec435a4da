r"""FedKD's codec: of what a round changes in a matrix, the singular vectors that hold its energy.

    python run.py --config-dir examples/compressed clients/codec=low_rank \
        strategy=averaging clients=same

Reference: Wu et al., "Communication-efficient federated learning via knowledge distillation",
Nature Communications 13 (2022); there the energy grows from round to round.
"""

import numpy as np


class LowRank:
    """Of a change U S V send U_k S_k and V_k, sum_i<=k s_i^2 >= energy sum_i s_i^2, if smaller."""

    def __init__(self, energy):
        self.energy = energy  # in (0, 1]

    def encode(self, arrays, *, received, note):
        """Send what has changed, or two thin matrices for it."""
        sent, ranks = {}, [0]
        for name, array in arrays.items():
            sent[name] = change = array - received[name]
            if change.ndim > 1:
                rows = change.reshape(len(change), -1)
                left, values, right = np.linalg.svd(rows, full_matrices=False)
                held = np.cumsum(values**2)
                rank = 1 + int((held < self.energy * held[-1]).sum())
                if rank * sum(rows.shape) < rows.size:
                    del sent[name]
                    sent[f"{name}:left"] = left[:, :rank] * values[:rank]
                    sent[f"{name}:right"] = right[:rank]
                    ranks.append(rank)
        note(largest_rank=max(ranks))
        return sent

    def decode(self, arrays, *, received):
        """Multiply, and add to what was received."""

        def change_of(name):
            whole = name in arrays
            return arrays[name] if whole else arrays[f"{name}:left"] @ arrays[f"{name}:right"]

        return {n: each + change_of(n).reshape(each.shape) for n, each in received.items()}
