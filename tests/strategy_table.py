"""For each option of the shipped strategies two values, and what must differ: `option_table`."""

from tests.option_table import ADAM, LINES, Differs

STUDENT = "student"
LATER = {"_target_": "torch.optim.lr_scheduler.LinearLR", "_partial_": True, "start_factor": 0.1}
"""A schedule whose learning rate grows with the first turns."""
LATER_WORDS = "{_target_:torch.optim.lr_scheduler.LinearLR,_partial_:true,start_factor:0.1}"

ENSEMBLE: dict[str, Differs | str] = {
    "strategy.ensemble.temperature of DistillationStrategy": Differs("uniform", 1.0, 4.0, STUDENT),
    **{f"strategy.proxy_split.labelled of {name}":
       Differs(f"{base} strategy/scorer=oracle", True, False, "error")
       for name, base in (("DistillationStrategy", "uniform"), ("FedDF", "feddf"),
                          ("MutualStrategy", "mutual"))},
    "strategy.proxy_split.calibration_share of DistillationStrategy":
        Differs("uniform", 0.0, 0.3, STUDENT),
    "strategy.proxy_split.negative_share of DistillationStrategy":
        Differs("uniform", 0.2, 0.5, STUDENT),
    "strategy.ensemble.weight_cap of DistillationStrategy":
        Differs("uniform strategy/scorer=max_prob", 1.0, 0.26, STUDENT),
    "strategy.ensemble.fallback_below of DistillationStrategy":
        Differs("own", 0.001, 1.0, STUDENT),
    "strategy.selection.share of random":
        Differs("uniform strategy/selection=random", 0.2, 0.9, STUDENT),
    "strategy.selection.examples of DistillationStrategy":  # in strategy=dsfl
        Differs("uniform strategy/selection=random", 5, 3, STUDENT),
    "strategy.selection.examples of random":
        Differs("uniform strategy/selection=random", None, 3, STUDENT),
    "strategy.combiner.era_temperature of era":
        Differs("uniform strategy/combiner=era", 0.1, 0.5, STUDENT),
    "strategy.combiner.exponent of enhanced_era":
        Differs("uniform strategy/combiner=enhanced_era", 1.0, 4.0, STUDENT),
    "strategy.selection.share of uncertain":
        Differs("uniform strategy/selection=uncertain", 0.2, 0.9, STUDENT),
    "strategy.selection.share of diverse":
        Differs("uniform strategy/selection=diverse", 0.2, 0.9, STUDENT),
    "strategy.selection.share of minority":
        Differs("uniform strategy/selection=minority", 0.2, 0.9, STUDENT),
    "strategy.fraction of DistillationStrategy":
        Differs("uniform", 1.0, 0.5, "line strategy.num_teachers"),
    "strategy.feed_back of DistillationStrategy":
        Differs("uniform rounds=2", "student", "targets", "column train_loss"),
    "strategy.distil":
        "strategies/server/test_fed_back_targets."
        "test_without_a_student_clients_learn_from_each_other_and_are_measured",
    "strategy.digest_epochs of DistillationStrategy":
        Differs("fed back", 1, 3, "column train_loss"),
    "strategy.ensemble.answers of DistillationStrategy":
        Differs("uniform", "float32", "uint8", "line bytes.reply"),
    "strategy.ask.features.tap of features":
        Differs("uniform strategy/ask=[features]", "penultimate", "features.0",
                "line bytes.reply"),
    "strategy.ask.features.shape of features":
        Differs("uniform strategy/ask=[features]", [None], [7], "error"),
    "strategy.ask.features.codec of features":
        Differs("uniform strategy/ask=[features]", "float32", "float16", "line bytes.reply"),
    "strategy.ask.features.tested of features":
        Differs("uniform strategy/ask=[features]", False, True, "line bytes.reply"),
    "strategy.ask.class_means.tap of class_means":
        Differs("uniform strategy/ask=[class_means]", None, "penultimate", "line bytes.reply"),
    "strategy.ask.class_means.codec of class_means":
        Differs("uniform strategy/ask=[class_means]", "float32", "uint8", "line bytes.reply"),
    "strategy.ask.class_counts.codec of class_counts":
        Differs("uniform strategy/ask=[class_counts]", "float32", "float16", "line bytes.reply"),
    "strategy.proxy_split.chunks of DistillationStrategy": Differs("uniform", 1, 3, STUDENT),
    "strategy.proxy_split.probe_examples of DistillationStrategy":
        Differs("uniform probes=standard", 256, 5, "line probes"),
    "strategy.discriminator":
        Differs("uniform", ("strategy/discriminator=none",),
                ("strategy/discriminator=features",), "line bytes.reply"),
    "strategy.discriminator.inputs of DiscriminatorRecipe":
        Differs("own", "features", "pixels", STUDENT),
    "strategy.discriminator.balanced of DiscriminatorRecipe": Differs("own", False, True, STUDENT),
    "strategy.discriminator.l2 of DiscriminatorRecipe": Differs("own", 0.01, 10.0, STUDENT),
    "strategy.discriminator.epsilon of DiscriminatorRecipe": Differs("own", None, 1.0, STUDENT),
    "strategy.discriminator.delta of DiscriminatorRecipe":
        Differs("own strategy.discriminator.epsilon=1", 1e-5, 0.1, STUDENT),
    "strategy.discriminator.epsilon of DistillationStrategy":  # in strategy=fedaux
        Differs("own", 0.1, 10.0, STUDENT),
    "strategy.discriminator.balanced of DistillationStrategy":  # in strategy=fedgo
        Differs("own", True, False, STUDENT),
    "strategy.loss.scale_by_t2 of DistillationStrategy":  # in strategy=fedaux
        Differs("uniform strategy.ensemble.temperature=2", True, False,
                "line strategy.distillation_loss"),
    "strategy.combiner.share of spectral_filter":
        Differs("uniform strategy/combiner=spectral_filter strategy.combiner.most_variance=0", 0.2,
                0.4, STUDENT),
    "strategy.combiner.most_variance of spectral_filter":
        Differs("uniform strategy/combiner=spectral_filter strategy.combiner.share=0.4", 0.0, 0.5,
                STUDENT),
    "strategy.loss.diversity_weight of consensus_and_diversity":
        Differs("uniform strategy/loss=consensus_and_diversity", 0.05, 5.0, STUDENT),
    **{f"strategy.scorer.{name} of unambiguous_selection":
       Differs("own strategy/scorer=unambiguous_selection strategy/discriminator=nearest_own"
               f" {more}", one, other, STUDENT)
       for name, one, other, more in (
           ("threshold", 0.25, 0.75, ""),
           ("ambiguity", 2.0, 0.9, "strategy.scorer.threshold=0.01"),
       )},
    **{f"strategy.discriminator.{name}":
       Differs(f"own strategy/discriminator={file}", one, other, STUDENT)
       for file, name, one, other in (
           ("mc_dropout", "draws of mc_dropout", 8, 2),
           ("mc_dropout", "rate of mc_dropout", 0.1, 0.5),
           ("energy", "temperature of energy", 1.0, 30.0),
           ("nearest_own", "neighbours of nearest_own", 10, 1),
           ("kulsif", "sigma of kulsif", 5.0, 0.5),
           ("kulsif", "points of kulsif", 250, 1),
       )},
    "strategy.scorer.threshold of own_selection":
        Differs("own strategy/scorer=own_selection strategy.discriminator.balanced=true", 0.5, 0.9,
                STUDENT),
    "strategy.loss.scale_by_t2 of kl":
        Differs("uniform strategy.ensemble.temperature=2", True, False,
                "line strategy.distillation_loss"),
    "strategy.distil.epochs of train": Differs("uniform", 1, 2, STUDENT),
    "strategy.distil.batch_size of train": Differs("uniform", 16, 8, STUDENT),
    "strategy.distil.max_grad_norm of train":
        Differs("uniform strategy.distil.optimizer._target_=torch.optim.SGD", None, 0.001, STUDENT),
    "strategy.distil.autocast of train": Differs("uniform", None, "bfloat16", STUDENT),
    "strategy.distil.steps of train": Differs("uniform", None, 3, STUDENT),
    "strategy.distil.drop_last of train":
        Differs("uniform strategy.distil.batch_size=9", False, True, STUDENT),
    "strategy.distil.scheduler of train":
        Differs("uniform strategy.distil.scheduler_by=step", None, LATER, STUDENT),
    "strategy.distil.scheduler_by of train":
        Differs(f"uniform strategy.distil.epochs=2 strategy.distil.scheduler={LATER_WORDS}",
                "round", "step", STUDENT),
    "strategy.distil.stop_below of train":
        Differs("uniform strategy.distil.epochs=4", None, 0.9, STUDENT),
    "strategy.distil.optimizer.lr of Adam": Differs("uniform", 0.001, 0.01, STUDENT),
}  # fmt: skip

MUTUAL: dict[str, Differs | str] = {
    "strategy.ensemble.temperature of MutualStrategy": Differs("mutual", 1.0, 4.0, STUDENT),
    "strategy.proxy_split.calibration_share of MutualStrategy":
        Differs("mutual", 0.0, 0.3, STUDENT),
    "strategy.proxy_split.negative_share of MutualStrategy":
        Differs("mutual", 0.2, 0.5, STUDENT),
    **{f"strategy.{name} of FedDF": Differs(f"feddf{more}", one, other, what)
       for name, more, one, other, what in (
           ("ensemble.temperature", "", 1.0, 4.0, STUDENT),
           ("ensemble.weight_cap", " strategy/scorer=max_prob", 1.0, 0.26, STUDENT),
           ("ensemble.fallback_below", " strategy/discriminator=features"
            " strategy/scorer=own_probability strategy.proxy_split.negative_share=0.3",
            0.001, 1.0, STUDENT),
           ("ensemble.answers", "", "float32", "uint8", "line bytes.reply"),
           ("proxy_split.negative_share", "", 0.0, 0.5, STUDENT),
           ("proxy_split.calibration_share", "", 0.1, 0.4, STUDENT),
           ("proxy_split.probe_examples", " probes=standard", 256, 5, "line probes"),
           ("fraction", "", 1.0, 0.5, "line strategy.num_teachers"))},
    **{f"strategy.distil.{name} of best_on_validation":
       Differs(f"early{more}", one, other, "line strategy.distillation_loss")
       for name, more, one, other in (
           ("batch_size", "", 8, 5), ("steps", "", 12, 3),
           ("patience_steps", "", 1000, 1), ("max_grad_norm", "", 5.0, 0.0001),
           ("autocast", "", None, "bfloat16"),
           ("drop_last", " strategy.distil.batch_size=7", False, True),
           ("scheduler_by", " strategy.distil.scheduler.T_max=3", "step", "round"),
           ("epochs", " strategy.distil.steps=null", 1, 3),
           ("stop_below", " strategy.distil.steps=40", None, 0.9))},
    "strategy.distil.every of best_on_validation": Differs("early", 1, 12, STUDENT),
    "strategy.distil.scheduler.T_max of CosineAnnealingLR": Differs("early", 10000, 3, STUDENT),
    "strategy.scorer.margin of above_chance":
        Differs("uniform strategy/scorer=above_chance strategy.proxy_split.calibration_share=0.3"
                " clients.training.epochs=5", 0.0, 0.6, STUDENT),
    "strategy.ensemble.weight_cap of MutualStrategy": Differs("mutual", 1.0, 0.26, STUDENT),
    "strategy.ensemble.fallback_below of MutualStrategy": Differs("mutual", 0.001, 1.0, STUDENT),
    "strategy.fraction of MutualStrategy":
        Differs("mutual", 1.0, 0.5, "line strategy.num_teachers"),
    "strategy.ensemble.answers of MutualStrategy":
        Differs("mutual", "float32", "uint8", "line bytes.reply"),
    "strategy.proxy_split.probe_examples of MutualStrategy":
        Differs("mutual probes=standard", 256, 5, "line probes"),
    "strategy.teaching.epochs of MutualStrategy": Differs("mutual", 1, 2, STUDENT),
    "strategy.teaching.batch_size of MutualStrategy": Differs("mutual", 16, 8, STUDENT),
    "strategy.teaching.optimizer.lr of Adam": Differs("mutual", 0.001, 0.01, STUDENT),
    "strategy.teaching.head_optimizer of MutualStrategy":
        Differs("one strategy.teaching.epochs=2", None, ADAM, STUDENT),
    "strategy.teaching.scheduler of MutualStrategy": Differs("mutual", None, LATER, STUDENT),
    "strategy.teaching.update of MutualStrategy":
        Differs("mutual", "simultaneous", "sequential", STUDENT),
    "strategy.teaching.refresh_epochs of MutualStrategy": Differs("codistillation", 2, 1, STUDENT),
    "strategy.peers of MutualStrategy": Differs("mutual", "architectures", "clients", STUDENT),
    "strategy.most_peers of MutualStrategy": Differs("mutual strategy.peers=clients", 3, 2, LINES),
    "strategy.teaching.taps of MutualStrategy":
        Differs("ffl strategy.teaching.epochs=2", {}, {"mlp": "classifier"}, STUDENT),
    "strategy.head": Differs("one", ("strategy/head=gate",), ("strategy/head=none",), "error"),
    "strategy.head.channels of Fusion": Differs("ffl", None, 9, STUDENT),
    "strategy.head.width of Attention": Differs("okddip strategy.teaching.epochs=3", 8, 2, STUDENT),
    "strategy.rule.hard_loss_weight of dml": Differs("mutual", 1.0, 2.0, STUDENT),
    "strategy.rule.soft_loss_weight of dml": Differs("mutual", 1.0, 2.0, STUDENT),
    "strategy.rule.temperature of dml": Differs("mutual", 1.0, 4.0, STUDENT),
    "strategy.rule.soft_loss_weight of codistillation":
        Differs("codistillation", 1.0, 2.0, STUDENT),
    "strategy.rule.burn_in_epochs of codistillation": Differs("codistillation", 1, 2, STUDENT),
    **{f"strategy.rule.{name} of {rule}":
       Differs(f"{rule} strategy.teaching.epochs=2", one, other, STUDENT)
       for rule in ("one", "ffl", "okddip")
       for name, one, other in (("temperature", 3.0, 1.0), ("ramp_epochs", 10, 2),
                                ("soft_loss_weight", 1.0, 0.5))},
    "strategy.rule.detach_features of ffl": Differs("ffl", False, True, STUDENT),
}  # fmt: skip

PEERS: dict[str, Differs | str] = {
    **{f"strategy.ensemble.{name} of Gossip":
       Differs(f"gossip{more}", one, other, "column digest_loss")
       for name, more, one, other in (
           ("temperature", "", 1.0, 4.0),
           ("weight_cap", " strategy/scorer=max_prob", 1.0, 0.35),
           ("fallback_below", "", 0.001, 1.0),
           ("answers", "", "float32", "uint8"))},
    **{f"strategy.{name} of Gossip": Differs(f"gossip{more}", one, other, what)
       for name, more, one, other, what in (
           ("with_own", "", True, False, "column digest_loss"),
           ("sweeps", " strategy/scorer=num_examples", 1, 2, "column digest_loss"),
           ("missing", " topology/mixing=uniform topology=star availability.drop_probability=0.4",
            "own", "renormalise", "column digest_loss"))},
    "strategy.proxy_split.labelled of Gossip": Differs("gossip", False, True, "error"),
    "strategy.proxy_split.calibration_share of Gossip":
        Differs("gossip", 0.0, 0.3, "column digested_examples"),
    "strategy.proxy_split.negative_share of Gossip":
        Differs("gossip", 0.2, 0.5, "column digested_examples"),
    "strategy.proxy_split.probe_examples of Gossip":
        Differs("gossip probes=standard", 256, 5, LINES),
    "strategy.order of ParameterGossip":
        Differs("peers", "adapt_then_combine", "combine_then_adapt", LINES),
    "strategy.push of ParameterGossip":
        Differs("push", (), ("strategy.push=false", "strategy.missing=own"), LINES),
    "strategy.missing of ParameterGossip":
        Differs("peers availability.drop_probability=0.4", "own", "renormalise", LINES),
    "strategy.first_rounds of Stages": Differs("cpfl", 1, 2, LINES),
    "strategy.second.local_training of Stages": Differs("cpfl", False, True, "column train_loss"),
    "strategy.keep of MutualTransfer": Differs("defkt", "received", "own", LINES),
    "strategy.how.epochs of Messenger": Differs("defkt", 1, 2, LINES),
    "strategy.how.batch_size of Messenger": Differs("defkt", 8, 5, LINES),
    "strategy.how.optimizer.lr of SGD": Differs("defkt", 0.05, 0.1, LINES),
    "strategy.how.optimizer.momentum of SGD": Differs("defkt", 0.9, 0.0, LINES),
}  # fmt: skip
