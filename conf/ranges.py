"""Ranges of the configuration: numbers that are refused before anything is loaded."""

from omegaconf import DictConfig, OmegaConf

from conf.errors import ConfigError

INFINITY = float("inf")

RANGES: dict[str, tuple[float, float, str]] = {
    "seed": (0, INFINITY, "an integer >= 0"),
    "rounds": (1, INFINITY, "an integer >= 1"),
    "evaluate_every": (1, INFINITY, "an integer >= 1"),
    "evaluation.examples": (0, INFINITY, "an integer >= 0, 0 for the whole test set, or null"),
    "quorum": (1e-9, 1, "a share in (0, 1]"),
    "checkpoint_every": (0, INFINITY, "an integer >= 0, 0 for never"),
    "checkpoints_kept": (1, INFINITY, "an integer >= 1"),
    "sim.threads": (1, INFINITY, "an integer >= 1"),
    "sim.workers": (1, INFINITY, "an integer >= 1, or null for one per core"),
    "sim.state_memory_bytes": (0, INFINITY, "an integer >= 0"),
    "sim.object_store_bytes": (78643200, INFINITY, "an integer >= 78643200, Ray's least, or null"),
    "sim.gpus_per_worker": (1e-3, INFINITY, "> 0"),
    "sim.peer_workers": (1, INFINITY, "an integer >= 1, or null for all workers"),
    "sim.peer_timeout_s": (1e-3, INFINITY, "> 0"),
    "sim.client_timeout_s": (1e-3, INFINITY, "> 0, or null for never"),
    "stop.patience": (1, INFINITY, "an integer >= 1, or null"),
    "tracking.figures_every": (0, INFINITY, "an integer >= 0, 0 for never"),
    "student_threads": (1, INFINITY, "an integer >= 1, or null for sim.threads"),
    "student_workers": (1, INFINITY, "an integer >= 1"),
    "clients.num_clients": (1, INFINITY, "an integer >= 1"),
    "clients.group_size": (1, INFINITY, "an integer >= 1"),
    "clients.training.epochs": (0, INFINITY, "an integer >= 0"),
    "clients.training.batch_size": (1, INFINITY, "an integer >= 1"),
    "clients.training.optimizer.lr": (1e-12, INFINITY, "> 0"),
    "clients.training.max_grad_norm": (1e-12, INFINITY, "> 0, or null"),
    "data.proxy_share": (0, 1 - 1e-9, "a share in [0, 1)"),
    "data.limit": (1, INFINITY, "an integer >= 1, or null for all"),
    "data.test_limit": (1, INFINITY, "an integer >= 1, or null for all"),
    "data.proxy_limit": (1, INFINITY, "an integer >= 1, or null for all"),
    "strategy.fraction": (1e-12, 1, "a share in (0, 1]"),
    "strategy.fraction_train": (0, 1, "a share in [0, 1]"),
    "strategy.fraction_evaluate": (0, 1, "a share in [0, 1]"),
    "strategy.digest_epochs": (0, INFINITY, "an integer >= 0"),
    "strategy.ensemble.fallback_below": (0, 1, "a probability in [0, 1]"),
    "strategy.proxy_split.chunks": (1, INFINITY, "an integer >= 1"),
    "strategy.proxy_split.probe_examples": (1, INFINITY, "an integer >= 1"),
    "strategy.teaching.epochs": (0, INFINITY, "an integer >= 0"),
    "strategy.teaching.batch_size": (1, INFINITY, "an integer >= 1"),
    "strategy.most_peers": (1, INFINITY, "an integer >= 1"),
    "strategy.teaching.refresh_epochs": (1, INFINITY, "an integer >= 1, or null for never"),
    "strategy.teaching.optimizer.lr": (1e-12, INFINITY, "> 0"),
    "strategy.teaching.head_optimizer.lr": (1e-12, INFINITY, "> 0"),
    "strategy.rule.temperature": (1e-12, INFINITY, "> 0"),
    "strategy.rule.ramp_epochs": (0, INFINITY, "an integer >= 0"),
    "strategy.rule.burn_in_epochs": (0, INFINITY, "an integer >= 0"),
    "strategy.rule.hard_loss_weight": (0, INFINITY, ">= 0"),
    "strategy.rule.soft_loss_weight": (0, INFINITY, ">= 0"),
    "strategy.head.channels": (1, INFINITY, "an integer >= 1, or null for the peers' mean"),
    "strategy.head.width": (1, INFINITY, "an integer >= 1"),
    "clients.condition.from_round": (1, INFINITY, "an integer >= 1"),
    "clients.condition.share": (0, 1, "a share in [0, 1]"),
    "clients.condition.votes": (1, INFINITY, "an integer >= 1"),
    "clients.objective.mu": (0, 1e12, ">= 0 and finite"),
    "clients.objective.weight": (0, 1e12, ">= 0 and finite"),
    "clients.objective.temperature": (1e-12, INFINITY, "> 0"),
    "clients.profile.multiplications_per_s": (1e-12, INFINITY, "> 0"),
    "clients.profile.download_bytes_per_s": (1e-12, INFINITY, "> 0"),
    "clients.profile.upload_bytes_per_s": (1e-12, INFINITY, "> 0"),
    "clients.profile.latency_s": (0, 1e12, ">= 0 and finite"),
    "clients.profile.slow_share": (0, 1, "a share in [0, 1]"),
    "clients.profile.slowdown": (1, 1e12, ">= 1 and finite"),
    "clients.profile.spread": (0, 10, "from 0 to 10"),
    "clients.messenger.epochs": (0, INFINITY, "an integer >= 0"),
    "clients.messenger.batch_size": (1, INFINITY, "an integer >= 1"),
    "clients.messenger.optimizer.lr": (1e-12, INFINITY, "> 0"),
    "strategy.sweeps": (1, INFINITY, "an integer >= 1"),
    "strategy.how.epochs": (0, INFINITY, "an integer >= 0"),
    "strategy.how.batch_size": (1, INFINITY, "an integer >= 1"),
    "strategy.how.optimizer.lr": (1e-12, INFINITY, "> 0"),
    "strategy.first_rounds": (1, INFINITY, "an integer >= 1"),
    "strategy.second.distil.epochs": (0, INFINITY, "an integer >= 0"),
    "strategy.second.distil.batch_size": (1, INFINITY, "an integer >= 1"),
    "strategy.second.distil.optimizer.lr": (1e-12, INFINITY, "> 0"),
    "strategy.distil.epochs": (0, INFINITY, "an integer >= 0"),
    "strategy.distil.batch_size": (1, INFINITY, "an integer >= 1"),
    "strategy.distil.optimizer.lr": (1e-12, INFINITY, "> 0"),
    "strategy.distil.max_grad_norm": (1e-12, INFINITY, "> 0, or null"),
}
"""What can be refused before anything is loaded; functions check their other arguments."""


def check_ranges(config: DictConfig) -> None:
    """Refuse numbers out of range.

    Args:
        config: The composed config.

    Raises:
        ConfigError: Names the key, the value and what was expected.
    """
    for key, (low, high, expected) in RANGES.items():
        value = OmegaConf.select(config, key)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"{key}={value!r}: expected {expected}")
        if not low <= value <= high or ("integer" in expected and value != int(value)):
            raise ConfigError(f"{key}={value}: expected {expected}")
