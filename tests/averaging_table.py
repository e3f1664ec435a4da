"""For each option of strategies that average, and of codecs, two values: `option_table`."""

from tests.option_table import Differs
from tests.strategy_table import STUDENT

FLOWERS = {"FedAvg": "fedavg", "FedAdam": "fedadam", "FedMedian": "fedmedian",
           "MultiKrum": "multikrum"}  # fmt: skip

AVERAGES: dict[str, Differs | str] = {
    **{f"strategy.{name} of {kind}": Differs(f"{base}{more}", one, other, what)
       for kind, base, what in (("FederatedDistillation", "fd", "column accuracy"),
                                ("FedDistillPlus", "fd plus", STUDENT))
       for name, one, other, more in (
           ("weight", 1.0, 5.0, ""), ("regulariser", "kl", "mse", ""),
           ("leave_one_out", True, False, ""), ("fraction", 1.0, 0.5, ""))},
    "strategy.fraction_evaluate of FederatedDistillation":
        Differs("fd", 1.0, 0.5, "line bytes.request"),
    "strategy.distil.steps of FedDF": Differs("feddf", 0, 3, STUDENT),
    "strategy.fraction_train of Averaging": Differs("averaging", 1.0, 0.5, "line bytes.request"),
    "strategy.fraction_evaluate of Averaging": Differs("averaging", 1.0, 0.5, "line bytes.request"),
    "strategy.weigh_by of Averaging":
        Differs("averaging data.limit=55", "examples", "clients", STUDENT),
    **{f"strategy.{name} of PartialAveraging": Differs(f"partial{more}", one, other, what)
       for name, more, one, other, what in (
           ("own", "", ["classifier.*"], ["features.*"], "line bytes.request"),
           ("own_epochs", "", None, 2, STUDENT),
           ("keep_trained", "", False, True, "column accuracy"),
           ("fraction_train", "", 1.0, 0.5, "line bytes.request"),
           ("fraction_evaluate", "", 1.0, 0.5, "line bytes.request"),
           ("weigh_by", " data.limit=55", "examples", "clients", STUDENT))},
    **{f"strategy.{name} of Ditto": Differs(f"ditto{more}", one, other, what)
       for name, more, one, other, what in (
           ("weight", " clients.training.epochs=2", 1.0, 5.0, "column accuracy"),
           ("own_epochs", "", None, 3, "column own_train_loss"),
           ("fraction_train", "", 1.0, 0.5, "line bytes.request"),
           ("fraction_evaluate", "", 1.0, 0.5, "line bytes.request"),
           ("weigh_by", " data.limit=55", "examples", "clients", STUDENT))},
    **{f"strategy.fraction_{phase} of {kind}":
       Differs(f"averaging strategy={kind.lower()}", 1.0, 0.5, "line bytes.request")
       for kind in ("FedNova", "FedDyn") for phase in ("train", "evaluate")},
    "strategy.alpha of FedDyn":
        Differs("averaging strategy=feddyn clients.training.epochs=2", 0.01, 1.0, STUDENT),
    **{f"strategy.{name} of {kind}":
       Differs(f"built strategy={file}", one, other, f"strategy {name}")
       for kind, file in FLOWERS.items()
       for name, one, other in (("fraction_train", 1.0, 0.5), ("fraction_evaluate", 1.0, 0.5),
                                ("min_train_nodes", 1, 2), ("min_evaluate_nodes", 1, 2),
                                ("min_available_nodes", 1, 2))},
    "strategy.eta of FedAdam": Differs("built strategy=fedadam", 0.1, 0.2, "strategy eta"),
    "strategy.num_malicious_nodes of MultiKrum":
        Differs("built strategy=multikrum", 0, 1, "strategy num_malicious_nodes"),
    "strategy.num_nodes_to_select of MultiKrum":
        Differs("built strategy=multikrum", 5, 2, "strategy num_nodes_to_select"),
}  # fmt: skip
"""What Flower's own do with their options is Flower's: here they are seen to have them."""

CODECS: dict[str, Differs | str] = {
    "clients.codec": Differs("averaging", ("clients/codec=none",), ("clients/codec=float16",),
                             "line bytes.reply"),
    "clients.codec_down": Differs("averaging", None, "float16", "line bytes.request"),
    **{f"clients.codec.{name}":
       Differs(f"averaging rounds=2 clients/codec={file}", one, other, what)
       for file, name, one, other, what in (
           ("uint8", "kind of Precision", "uint8", "float16", "line bytes.reply"),
           ("top_k", "share of TopK", 0.1, 0.5, "line bytes.reply"),
           ("top_k", "memory of TopK", True, False, STUDENT),
           ("qsgd", "bits of QSGD", 4, 2, "line bytes.reply"),
           ("qsgd", "bucket of QSGD", 512, 8, "line bytes.reply"),
           ("deflate student.hidden=[64]", "level of Deflate", 6, 0, "line bytes.reply"),
           ("top_k_deflate", "codecs of Chain", ["uint8"], ["float16"], "line bytes.reply"),
           ("gaussian", "clip of GaussianMechanism", 1.0, 0.01, STUDENT),
           ("gaussian", "sigma of GaussianMechanism", 0.01, 0.1, STUDENT),
       )},
}  # fmt: skip
