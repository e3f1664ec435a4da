"""Options of published methods that are one file each, and what another value of each changes."""

from tests.option_table import Differs
from tests.strategy_table import STUDENT

BOOST = {"_target_": "strategies.teaching.synthesis.boosted_weights", "_partial_": True,
         "step": 0.1, "decay": 1.0}  # fmt: skip

METHODS: dict[str, Differs | str] = {
    **{f"strategy.{name} of KTpFL": Differs("ktpfl", one, other, what)
       for name, one, other, what in (
           ("temperature", 10.0, 1.0, "column digest_loss"),
           ("loss.scale_by_t2", False, True, "column digest_loss"),
           ("digest_epochs", 1, 2, "column digest_loss"),
           ("examples", 5000, 5, "line bytes.reply"),
           ("fraction", 1.0, 0.5, "line bytes.request"),
           ("pull", 1.0, 30.0, "line strategy.own_coefficient"),
           ("step", 0.01, 0.1, "line strategy.own_coefficient"),
           ("sharpness", 5.0, 1.0, "line strategy.own_coefficient"))},
    **{f"strategy.{name}": Differs("fedgkt", one, other, what)
       for name, one, other, what in (
           ("server.norm of resnet20", "batch", "group", "line strategy.server_loss"),
           ("distil.epochs of FedGKT", 2, 1, "line strategy.server_loss"),
           ("tap of FedGKT", "features.2", "features.0", "line bytes.reply"),
           ("temperature of FedGKT", 3.0, 1.0, "line strategy.server_loss"),
           ("alpha of FedGKT", 1.0, 0.1, "line strategy.server_loss"),
           ("fraction of FedGKT", 1.0, 0.5, "line bytes.request"))},
    **{f"strategy.{name} of Scarlet": Differs(f"scarlet{more}", one, other, what)
       for name, more, one, other, what in (
           ("ensemble.temperature", "", 1.0, 4.0, STUDENT),
           ("ensemble.weight_cap", " strategy/scorer=max_prob", 1.0, 0.3, STUDENT),
           ("ensemble.answers", "", "float32", "uint8", "line bytes.reply"),
           ("examples", "", 1000, 5, "line bytes.reply"),
           ("keep_rounds", "", 50, 1, "line bytes.reply"),
           ("digest_epochs", "", 5, 1, "column digest_loss"),
           ("fraction", "", 1.0, 0.5, "line bytes.request"))},
    **{f"strategy.{name}": Differs(base, one, other, STUDENT)
       for base, name, one, other in (
           ("dense", "synthesis.generator.width of image_generator", 32, 3),
           ("dense", "synthesis.optimizer.lr of Adam", 0.001, 0.01),
           ("dense", "synthesis.optimizer.betas of Adam", [0.5, 0.999], [0.9, 0.999]),
           ("dense", "synthesis.steps of DataFreeDistillation", 10, 1),
           ("dense", "synthesis.batch_size of DataFreeDistillation", 64, 8),
           ("dense", "synthesis.noise_size of DataFreeDistillation", 64, 8),
           ("dense ~clients.architectures.mlp +clients.architectures.r.share=1"
            " +clients.architectures.r.model._target_=clients.models.resnet8"
            " +clients.architectures.r.model._partial_=true +clients.architectures.r.model.width=2",
            "synthesis.bn_weight of DataFreeDistillation", 1.0, 0.0),
           ("coboosting", "synthesis.adversarial_weight of DataFreeDistillation", 1.0, 0.0),
           ("coboosting", "synthesis.adversarial_temperature of DataFreeDistillation", 3.0, 1.0),
           ("coboosting", "synthesis.only_disagreed of DataFreeDistillation", False, True),
           ("coboosting", "synthesis.hard_power of DataFreeDistillation", 1.0, 0.0),
           ("coboosting", "synthesis.perturbation of DataFreeDistillation", 0.03, 0.0),
           ("dense", "distil.epochs of DataFreeDistillation", 1, 2),
           ("dense", "distil.optimizer.lr of SGD", 0.01, 0.1),
           ("dense strategy.distil.batch_size=4", "distil.optimizer.momentum of SGD", 0.9, 0.0),
           ("dense", "temperature of DataFreeDistillation", 20.0, 4.0),
           ("dense", "epochs of DataFreeDistillation", 2, 3),
           ("dense", "boost of DataFreeDistillation", None, BOOST),
           ("coboosting", "boost.step of DataFreeDistillation", 0.01, 0.1),
           ("coboosting", "boost.decay of DataFreeDistillation", 0.99, 0.5))},
}  # fmt: skip
