"""What other projects, and papers, call our keys and options."""

import re
from collections.abc import Iterable

KEYS = {
    "rounds": (
        *("num_rounds", "n_rounds", "num_server_rounds", "comm_round", "comm_rounds", "max_rounds"),
        *("communication_rounds", "global_rounds", "global_epochs", "R", "num_iterations"),
    ),
    "evaluate_every": ("eval_every", "eval_interval", "test_every", "eval_gap", "test_interval"),
    "seed": ("random_seed", "rng_seed", "manual_seed"),
    "clients.num_clients": (
        *("num_users", "n_clients", "n_users", "n_parties", "num_parties", "num_nodes", "nodes"),
        *("num_partitions", "num_supernodes", "K", "N", "clients.K", "clients.number"),
    ),
    "strategy.fraction": (
        *("clients_per_round", "num_clients_per_round", "client_num_per_round", "fraction_fit"),
        *("fraction", "frac", "C", "participation", "participation_rate", "sample_rate"),
        *("join_ratio", "client_fraction", "sample_fraction", "strategy.fraction_fit"),
    ),
    "clients.training.epochs": (
        *("epochs", "local_epochs", "local_epoch", "num_epochs", "n_epochs", "local_ep", "E"),
        *("clients.epochs", "clients.local_epochs", "training.epochs", "train.epochs"),
    ),
    "clients.training.steps": ("local_steps", "num_steps", "max_steps", "local_iterations"),
    "clients.training.batch_size": (
        *("batch_size", "batchsize", "local_batch_size", "local_bs", "bs", "B"),
        *("clients.batch_size", "training.batch_size", "train.batch_size"),
    ),
    "clients.training.optimizer.lr": (
        *("lr", "learning_rate", "local_lr", "client_lr", "local_learning_rate", "eta"),
        *("clients.lr", "clients.learning_rate", "clients.training.lr"),
        *("clients.training.learning_rate", "training.lr", "train.lr", "optimizer.lr"),
    ),
    "clients.training.optimizer.momentum": ("momentum", "clients.training.momentum"),
    "clients.training.max_grad_norm": ("clip", "grad_clip", "clip_grad", "max_norm"),
    "clients/training/scheduler": (
        *("scheduler", "lr_scheduler", "lr_schedule", "lr_decay", "lr_decay_rate", "lr_gamma"),
        *("clients.training.lr_decay", "clients.training.lr_scheduler"),
        "clients.training.optimizer.scheduler",
    ),
    "clients/training/optimizer": ("optimizer", "optim", "client_optimizer"),
    "clients/objective": ("loss", "criterion", "local_loss", "clients.training.loss"),
    "clients/view": ("augment", "augmentation", "data.augment", "transforms", "data.transforms"),
    "clients/objective=proximal clients.objective.mu": (
        "mu",
        "proximal_mu",
        "prox_mu",
        "fedprox_mu",
    ),
    "partition": ("partition_method", "partitioner", "noniid", "non_iid", "iid", "split", "niid"),
    "partition=dirichlet partition.dirichlet_concentration": (
        *("alpha", "dirichlet_alpha", "dir_alpha", "beta", "dirichlet", "concentration"),
        *("partition.alpha", "partition.beta", "data.alpha"),
    ),
    "data": ("dataset", "dataset_name", "data_name", "data.dataset", "data.name"),
    "data.root": (
        *("data_dir", "data_path", "datadir", "dataset_path", "dataset_dir", "data_root"),
        *("data.path", "data.dir", "data.data_dir"),
    ),
    "proxy": ("public_dataset", "public_data", "proxy_dataset", "aux_dataset", "unlabeled_data"),
    "student": ("model", "model_name", "net", "network", "arch", "architecture", "backbone"),
    "strategy": ("algorithm", "algo", "method", "aggregator", "strategy_name", "fl_algorithm"),
    "strategy.ensemble.temperature": (
        *("T", "temp", "tau", "temperature", "kd_temperature", "distill_temperature"),
        *("strategy.T", "strategy.tau", "strategy.ensemble.T", "strategy.distil.temperature"),
    ),
    "strategy.distil.epochs": ("server_epochs", "distill_epochs", "kd_epochs", "server_steps"),
    "strategy.distil.optimizer.lr": ("server_lr", "distill_lr", "kd_lr"),
    "strategy/loss": ("kd_loss", "distill_loss", "distillation_loss"),
    "sim.workers": ("num_workers", "workers", "n_workers", "num_actors", "num_cpus", "n_jobs"),
    "sim.gpus_per_worker": ("gpus", "num_gpus", "n_gpus", "gpus_per_client", "client_gpus"),
    "sim.device=cuda student_device": ("device", "gpu", "cuda", "use_cuda", "use_gpu", "gpu_id"),
    "sim": ("backend", "engine", "simulator"),
    "clients/profile": ("stragglers", "straggler", "system_heterogeneity"),
    "availability.drop_probability": ("dropout_rate", "drop_prob", "drop_rate", "drop_percent"),
    "hydra.run.dir": (
        *("output_dir", "out_dir", "save_dir", "results_dir", "result_dir", "exp_dir", "run_dir"),
        *("log_dir", "logdir", "output", "outdir"),
    ),
    "checkpoint_every": ("checkpoint", "checkpoints", "ckpt", "save_every", "save_interval"),
    "resume": ("resume_from", "load", "ckpt_path", "restore", "resume_from_checkpoint"),
    "probes": (
        *("logger", "loggers", "wandb", "use_wandb", "tensorboard", "metrics", "callbacks"),
        *("tracking.wandb", "clients.test_share", "data.client_test_share", "local_test"),
    ),
    "stop.metric=student/accuracy stop.above": ("stop_at", "target_accuracy", "target_acc"),
    "stop.patience": ("patience", "early_stopping", "early_stop", "early_stopping.patience"),
}
"""What to write here, without its last value, and what stands elsewhere for it."""

OPTIONS = {
    ("strategy", "fedprox"): "strategy=averaging clients=same clients/objective=proximal",
    ("strategy", "fml"): "experiment=fml",
    ("strategy", "fedkd"): "experiment=fedkd",
    ("strategy", "cfd"): "experiment=cfd",
    ("strategy", "proxyfl"): "experiment=proxyfl",
    ("strategy", "kd"): "strategy=distillation",
    ("strategy", "dfedavg"): "strategy=dpsgd",
    ("strategy", "local"): "strategy=local_only",
    ("strategy", "ensemble"): "strategy=fedensemble",
    ("data", "fmnist"): "data=fashion_mnist",
    ("data", "custom"): "data=npz data.source.path=FILE.npz",
    **dict.fromkeys(
        (("data", "csv"), ("data", "parquet"), ("data", "tabular")),
        "data=table data.source.path=FILE.csv clients=mixed_tabular student=mlp",
    ),
    **dict.fromkeys(
        (("data", "folder"), ("data", "images")), "data=image_folder data.source.path=FOLDER"
    ),
    **dict.fromkeys(
        (("data", "hf"), ("data", "datasets")), "data=hugging_face data.source.path=FOLDER"
    ),
    ("partition", "noniid"): "partition=dirichlet",
    ("partition", "dir"): "partition=dirichlet",
    ("partition", "lda"): "partition=dirichlet",
    ("partition", "pathological"): "partition=shards",
    ("partition", "uniform"): "partition=iid",
    ("sim", "local"): "sim=inline",
    ("sim", "serial"): "sim=inline",
    ("sim", "gpu"): "sim=ray sim.device=cuda student_device=cuda",
    ("student", "resnet"): "student=resnet8",
    ("student", "lenet"): "student=lenet5",
    ("topology", "full"): "topology=complete",
    ("topology", "fullyconnected"): "topology=complete",
    ("topology", "random"): "topology=erdos_renyi",
    ("topology", "exponential"): "topology=static_exponential",
    ("clients/training", "kept"): "clients/training=kept_sgd",
}
"""By group and option, in small letters and without signs: what to write here."""

_OURS = {other: ours for ours, others in KEYS.items() for other in others}


def our_key(key: str) -> str:
    """Say what a key of other projects is called here, such as "; here it is ...=..."."""
    ours = _OURS.get(key) or _OURS.get(key.replace("-", "_")) or _OURS.get(key.lower())
    return f"; here it is {ours}=..." if ours else ""


def our_option(group: str, option: str, options: Iterable[str]) -> str:
    """Say which option is meant by one of other projects, or by one spelt otherwise: FedAvg."""
    plain = _plain(option)
    same = next((each for each in options if _plain(each) == plain), None)
    ours = f"{group}={same}" if same else OPTIONS.get((group, plain))
    return f"; here it is {ours}" if ours else ""


def _plain(option: str) -> str:
    return re.sub("[^a-z0-9]", "", option.lower())
