"""Options of published methods that are one file each, and what another value of each changes."""

from tests.option_table import Differs

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
}  # fmt: skip
