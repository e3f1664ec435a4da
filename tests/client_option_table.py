"""For each option of the clients and networks two values, and what must differ: `option_table`."""

from tests.option_table import Differs

HALVED = {"_target_": "torch.optim.lr_scheduler.StepLR", "_partial_": True, "step_size": 1,
          "gamma": 0.5}  # fmt: skip
"""A schedule whose learning rate falls with each turn."""
HALVED_WORDS = "{_target_:torch.optim.lr_scheduler.StepLR,_partial_:true,step_size:1,gamma:0.5}"
BY_STEP = "clients.training.scheduler_by=step"

MESSENGER: dict[str, Differs | str] = {
    "clients.messenger": Differs("averaging", ("clients/messenger=none",),
                                 ("clients/messenger=fml",), "student"),
    "clients.messenger.epochs of Messenger": Differs("fml", 1, 2, "student"),
    "clients.messenger.batch_size of Messenger": Differs("fml", 8, 5, "student"),
    "clients.messenger.head of Messenger":
        Differs("fedkd", None,
                {"_target_": "clients.mutual.group_heads.Projection", "_partial_": True},
                "student"),
    "clients.messenger.optimizer.lr of SGD": Differs("fml", 0.05, 0.1, "student"),
    "clients.messenger.optimizer.momentum of SGD": Differs("fml", 0.9, 0.0, "student"),
    "clients.messenger.rule.hard_loss_weight of dml": Differs("fml", 0.5, 1.0, "student"),
    "clients.messenger.rule.soft_loss_weight of dml": Differs("fml", 0.5, 1.0, "student"),
    "clients.messenger.rule.temperature of dml": Differs("fml", 1.0, 3.0, "student"),
    "clients.messenger.rule.temperature of adaptive_mutual": Differs("fedkd", 1.0, 3.0, "student"),
}  # fmt: skip

SPEEDS = ("multiplications_per_s", "download_bytes_per_s", "upload_bytes_per_s", "latency_s")
OF_TASKS = {
    "bag_of_embeddings": ("width", "hidden"), "transformer": ("width", "heads", "layers"),
    "fcn": ("channels", "dilation"),
}  # fmt: skip
ARCHITECTURES = {
    name: [f"clients.architectures.{own}.model" for own in keys]
    for name, keys in {
        "bag_of_embeddings": ["bag_of_embeddings"], "transformer": ["transformer"],
        "fcn": ["narrow", "wide"],
    }.items()
}  # fmt: skip
KINDS_OF_PHONES = ("alike", "lognormal", "two_speeds")
CLIENTS: dict[str, Differs | str] = {
    "clients.num_clients": Differs("built", 4, 3, "population"),
    "clients.group_size": Differs("averaging", 8, 1, "student"),
    "clients.together": Differs("averaging", True, False, "student"),
    "clients.architectures": Differs("built", ("clients=same",), ("clients=mixed_small",),
                                     "population"),
    "clients.architectures.student.share": Differs("averaging", 1, 0, "error"),
    **{f"clients.architectures.{name}.share": Differs("built clients.num_clients=20", 0.3, 2.0,
                                                      "population")
       for name in ("lenet5", "logistic_regression", "mlp")},
    **{f"clients.architectures.{name}.share":
       Differs("built clients=mixed_large clients.num_clients=10", 1, 3, "population")
       for name in ("resnet8", "resnet20", "mobilenet_v2_small", "shufflenet_v2_05", "vgg9")},
    "clients.architectures.linear.share":
        Differs("built clients=mixed_tabular clients.num_clients=10", 0.5, 3, "population"),
    **dict.fromkeys(
        (f"clients.architectures.{name}.share"
         for name in ("bag_of_embeddings", "transformer", "narrow", "wide")),
        "test_tasks.test_shares_say_who_has_which_network",
    ),
    "clients.architectures.mlp.model.hidden of mlp": Differs("uniform", [4], [5], "column loss"),
    "clients.condition": Differs("uniform", ("clients/condition=none",),
                                  ("clients/condition=permuted_labels",), "column train_loss"),
    "clients.condition.clients of permuted_labels":
        Differs("uniform clients/condition=permuted_labels", [0], [1], "column train_loss"),
    "clients.condition.from_round of permuted_labels":
        Differs("uniform clients/condition=permuted_labels", 1, 2, "column train_loss"),
    "clients.condition.shift of permuted_labels":
        Differs("uniform clients/condition=permuted_labels", 1, 2, "column train_loss"),
    **{f"clients.condition.{name} of {kind}":
       Differs(f"uniform clients/condition={kind}", one, other, "column train_loss")
       for kind, name, one, other in (
           ("symmetric_noise", "share", 0.1, 0.9), ("pair_noise", "share", 0.1, 0.9),
           ("coarse_labels", "groups", [[0, 1]], [[0, 2]]), ("label_free", "clients", [0], [1]),
           ("taggers", "quality", None, [0.5]), ("taggers", "beta", [6, 2], [1, 1]),
           ("taggers", "votes", 5, 1), ("taggers", "soft", True, False),
       )},
    "clients.objective": Differs("averaging", ("clients/objective=labels",),
                                 ("clients/objective=proximal", "clients.objective.mu=1"),
                                 "student"),
    "clients.objective.mu of proximal":
        Differs("averaging clients/objective=proximal", 0.1, 1.0, "student"),
    "clients.objective.weight of not_true":
        Differs("averaging clients/objective=not_true", 0.0, 1.0, "student"),
    "clients.objective.temperature of not_true":
        Differs("averaging clients/objective=not_true", 1.0, 3.0, "student"),
    "clients.objective.scale_by_t2 of not_true":
        Differs("averaging clients/objective=not_true clients.objective.temperature=3", True, False,
                "student"),
    "clients.shape": Differs("uniform", ("clients/shape=none",),
                             ("clients/shape=magnitude_pruning",), "column loss"),
    "clients.shape.choose.keep of share_of_units":
        Differs("uniform clients/shape=magnitude_pruning", [0.5], [0.25], "column loss"),
    "clients.shape.choose.from_round of share_of_units":
        Differs("uniform clients/shape=magnitude_pruning", 1, 2, "column loss"),
    "clients.view": Differs("uniform", ("clients/view=none",), ("clients/view=rotated",),
                            "column train_loss"),
    "clients.view.pixels of shifted":
        Differs("uniform clients/view=shifted", 0, 2, "column train_loss"),
    "clients.view.share of flipped":
        Differs("uniform clients/view=flipped", 0.0, 1.0, "column train_loss"),
    "clients.view.turns of rotated":
        Differs("uniform clients/view=rotated", [0], [1], "column train_loss"),
    "clients.view.share of occluded":
        Differs("uniform clients/view=occluded", 0.0, 0.5, "column train_loss"),
    "clients.view.clients of occluded":
        Differs("uniform clients/view=occluded", [0], [1], "column train_loss"),
    "clients.view.factor of low_resolution":
        Differs("uniform clients/view=low_resolution", 1, 4, "column train_loss"),
    "clients.view.clients of low_resolution":
        Differs("uniform clients/view=low_resolution", [0], [1], "column train_loss"),
    "clients.profile": Differs("uniform", ("clients/profile=alike",),
                               ("clients/profile=two_speeds",), "line simulated_time_s"),
    **{f"clients.profile.{name} of alike":
       Differs("uniform clients/profile=alike", 1.0, 2.0, "line simulated_time_s")
       for name in SPEEDS},
    **{f"clients.profile.{name} of {kind}":
       Differs(f"built clients/profile={kind}", 1.0, 2.0, "profiles")
       for name in SPEEDS for kind in KINDS_OF_PHONES[1:]},
    "clients.profile.spread of lognormal":
        Differs("built clients/profile=lognormal", 0.7, 0.1, "profiles"),
    "clients.profile.slow_share of two_speeds":
        Differs("built clients/profile=two_speeds", 0.5, 0.25, "profiles"),
    "clients.profile.slowdown of two_speeds":
        Differs("built clients/profile=two_speeds", 4, 2, "profiles"),
    "clients.training.epochs of train": Differs("uniform", 1, 2, "column train_loss"),
    "clients.training.batch_size": Differs("uniform", 8, 6, "column train_loss"),
    "clients.training.optimizer.lr of Adam":
        Differs("uniform clients/training=adam", 0.05, 0.1, "column train_loss"),
    "clients.training.batch_size of train": Differs("uniform", 8, 5, "column train_loss"),
    "clients.training.max_grad_norm of train": Differs("uniform", None, 0.01, "column train_loss"),
    "clients.training.autocast of train": Differs("uniform", None, "bfloat16",
                                                  "column train_loss"),
    "clients.training.steps of train": Differs("uniform", None, 5, "column train_loss"),
    "clients.training.drop_last of train": Differs("uniform", False, True, "column train_loss"),
    "clients.training.scheduler":
        Differs(f"uniform {BY_STEP}", ("clients/training/scheduler=none",),
                ("clients/training/scheduler=exponential",), "column train_loss"),
    "clients.training.scheduler of train":
        Differs("uniform clients.training.scheduler_by=step", None, HALVED, "column train_loss"),
    "clients.training.scheduler_by of train":
        Differs(f"uniform clients.training.scheduler={HALVED_WORDS}", "round", "step",
                "column train_loss"),
    "clients.training.stop_below of train":
        Differs("uniform clients.training.epochs=4", None, 0.9, "column train_loss"),
    **{f"clients.training.{name} of keep_optimizer":
       Differs(f"uniform clients/training=kept_sgd{more}", one, other, "column train_loss")
       for name, more, one, other in (
           ("epochs", "", 1, 2), ("batch_size", "", 8, 5), ("max_grad_norm", "", None, 0.01),
           ("autocast", "", None, "bfloat16"), ("steps", "", None, 5),
           ("drop_last", "", False, True),
           ("scheduler", " clients.training.scheduler_by=step", None, HALVED),
           ("scheduler_by", f" clients.training.scheduler={HALVED_WORDS}", "round", "step"),
           ("stop_below", " clients.training.epochs=4", None, 0.9))},
    **{f"clients.training.optimizer.{name} of AdamW":
       Differs("uniform clients/training/optimizer=adamw", one, other, "column train_loss")
       for name, one, other in (("lr", 0.05, 0.1), ("weight_decay", 0.0, 0.5))},
    **{f"clients.training.scheduler.{name}":
       Differs(f"uniform {BY_STEP} clients/training/scheduler={kind}{more}",
               one, other, "column train_loss")
       for kind, more, name, one, other in (
           ("exponential", "", "gamma of ExponentialLR", 1.0, 0.5),
           ("step", "", "step_size of StepLR", 1, 100),
           ("step", " clients.training.scheduler.step_size=1", "gamma of StepLR", 1.0, 0.5))},
    "clients.training.optimizer.lr of SGD": Differs("uniform", 0.05, 0.1, "column train_loss"),
    "clients.training.optimizer.momentum of SGD": Differs("uniform", 0.9, 0.0,
                                                          "column train_loss"),
}  # fmt: skip

NETWORKS: dict[str, Differs | str] = {
    "student.hidden of mlp": Differs("built", [4], [5], "start"),
    "student.hidden of cnn": Differs("bare student=cnn", 8, 9, "start"),
    "student.channels of cnn": Differs("bare student=cnn", [2, 3], [2, 4], "start"),
    "student.norm of cifar_resnet":
        Differs("bare student=resnet32 student.depth=8", "batch", "group", "start"),
    "student.depth of cifar_resnet": Differs("bare student=resnet32", 8, 14, "start"),
    "student.hidden of strided_cnn": Differs("bare student=strided_cnn", 8, 9, "start"),
    "student.channels of strided_cnn": Differs("bare student=strided_cnn", [2, 3], [2, 4], "start"),
    **{f"student.norm of {name}": Differs(f"bare student={name}", "batch", "group", "start")
       for name in ("resnet8", "resnet20", "resnet18", "mobilenet_v2_small", "shufflenet_v2_05",
                    "strided_cnn")},
    **dict.fromkeys(
        (f"{where}.{number} of {name}"
         for name, numbers in OF_TASKS.items()
         for where in ("student", *ARCHITECTURES[name])
         for number in numbers),
        "clients/models/test_text_and_dense.test_each_number_makes_another_network",
    ),
}  # fmt: skip
