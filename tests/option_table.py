"""For each shipped option two values, and what must differ between two runs that have them."""

from typing import Any, NamedTuple


class Differs(NamedTuple):
    """With `one` and with `other`, `what` is seen to be different.

    Attributes:
        base: One of `tests.tiny_runs.BASES`, or several words: with further overrides.
        one: A value; or overrides, as a tuple: where the option is a choice.
        other: Another.
        what: See `tests.tiny_runs.observed`.
    """

    base: str
    one: Any
    other: Any
    what: str


ADAM = {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 0.1}
RING, STAR = (
    {"_target_": f"sim.topology.graphs.{name}", "_partial_": True} for name in ("ring", "star")
)
LINES = "lines"

RUN: dict[str, Differs | str] = {
    "seed": Differs("uniform", 0, 1, "student"),
    "rounds": Differs("uniform", 1, 2, "line round"),
    "evaluate_every": Differs("uniform rounds=2", 1, 2, LINES),
    "evaluation.examples": Differs("uniform rounds=2", 0, 5, LINES),
    "stop.metric": Differs("uniform rounds=3 stop.above=0.99", "student/loss", "student/accuracy",
                           LINES),
    "stop.above": Differs("uniform rounds=3 stop.metric=student/loss", 0.1, 99.0, LINES),
    "stop.below": Differs("uniform rounds=3 stop.metric=student/loss", 99.0, 0.0, LINES),
    "stop.patience": Differs("uniform rounds=4 stop.metric=student/loss stop.mode=max", 1, 3,
                             LINES),
    "stop.mode": Differs("uniform rounds=3 stop.metric=student/loss stop.patience=1", "min", "max",
                         LINES),
    "quorum": "test_user_rules.test_below_the_quorum_the_run_stops_and_says_who_failed_first",
    "checkpoint_every": Differs("uniform", 0, 1, "files manifest*.json"),
    "checkpoints_kept": Differs("uniform rounds=2 checkpoint_every=1", 1, 2, "files manifest*"),
    "resume": "test_killed_runs.test_killed_in_mid_round_and_resumed_with_more_rounds",
    "resume_targets":
        "conf/test_resume.test_targets_in_lists_are_found_and_a_named_one_is_let_through",
    "student_device": Differs("uniform", "cpu", "nonsense", "error"),
    "student_threads":
        "strategies/server/test_student_threads.test_the_student_alone_learns_with_so_many",
    "student_workers": Differs("uniform", 1, 2, "error"),
    "sim.threads of InlinePool": "test_options.test_threads_are_the_configs",
    "sim.device of InlinePool": Differs("uniform", "cpu", "nonsense", "error"),
    "sim.state_memory_bytes of InlinePool": "test_options.test_states_spill_where_the_config_says",
    "sim.client_timeout_s of InlinePool": Differs("built", None, 9.0, "pool _client_timeout_s"),
    **dict.fromkeys(
        (f"sim.{name} of RayPool" for name in (
            "workers", "threads", "device", "gpus_per_worker", "object_store_bytes", "address",
            "peer_workers", "peer_timeout_s", "client_timeout_s")),
        "test_options.test_ray_is_started_as_the_config_says",
    ),
    **dict.fromkeys(
        (f"sim.{name} of AutoPool" for name in (
            "workers", "threads", "device", "gpus_per_worker", "object_store_bytes", "address",
            "peer_workers", "peer_timeout_s", "client_timeout_s", "state_memory_bytes")),
        "sim/workers/test_pool_choice.test_nothing_that_the_config_has_is_lost",
    ),
    "tracking.figures_every": Differs("uniform", 0, 1, "tags"),
    "tracking.watch": Differs("uniform", [], [1], "tags"),
    "tracking.proxy_labels": Differs("uniform probes=standard", True, False, "line probes"),
    "probes.cka.most_clients of representation_drift":
        Differs("uniform probes=with_features", 8, 1, "line probes"),
    "probes.output_matrices.probe.most_clients of output_matrices":
        "sim/analysis/probes/test_output.test_matrices_are_of_clients_spread_over_the_cohort",
    **{f"probes.fgsm.{name}":
       Differs("uniform probes=robustness", one, other, "column fgsm_accuracy")
       for name, one, other in (
           ("of.epsilon of fgsm", 0.1, 3.0), ("inputs of Ask", "test", "proxy"),
           ("examples of Ask", 256, 5), ("share of Ask", 1.0, 0.5),
       )},
    **{f"probes.own_accuracy.{name} of Ask":
       Differs("uniform probes=personal", one, other, "column own_accuracy")
       for name, one, other in (
           ("inputs", "test", "proxy"), ("examples", None, 5), ("share", 1.0, 0.5),
       )},
    "probes.own_accuracy.every of Ask": Differs("uniform probes=personal", 1, 0, "line probes"),
    **{f"probes.own_examples_accuracy.{name} of Ask":
       Differs(f"owned probes=own_examples{more}", one, other, "column own_examples_accuracy")
       for name, more, one, other in (
           ("examples", "", None, 4), ("share", "", 1.0, 0.5), ("every", " rounds=2", 1, 2),
       )},
    "probes.own_examples_accuracy.inputs of Ask":
        Differs("owned probes=own_examples", "test", "proxy", "error"),
    "probes.fgsm.every of Ask": Differs("uniform probes=robustness", 1, 0, "line probes"),
    **{f"probes.{probe}.{name} of Ask": f"sim/analysis/probes/test_asking.{test}"
       for probe in ("pgd", "input_gradient")
       for name, test in (
           ("inputs", "test_the_examples_are_drawn_once_and_are_those_that_were_chosen"),
           ("examples", "test_the_examples_are_drawn_once_and_are_those_that_were_chosen"),
           ("every", "test_when_and_of_whom_is_the_configs"),
           ("share", "test_when_and_of_whom_is_the_configs"),
       )},
    "probes.pgd.of.epsilon of pgd":
        Differs("uniform probes=robustness", 0.1, 3.0, "column pgd_accuracy"),
    **dict.fromkeys(
        (f"probes.pgd.of.{name} of pgd" for name in ("steps", "step_size")),
        "sim/analysis/probes/test_robustness."
        "test_pgd_goes_to_the_corner_of_the_box_and_no_further",
    ),
}  # fmt: skip

DATA: dict[str, Differs | str] = {
    "data.source": Differs("any data", ("data=blobs",), ("data=digits",), "splits"),
    "data.source.num_examples of blobs": Differs("built", 120, 130, "splits"),
    "data.source.num_classes of blobs": Differs("built", 4, 3, "splits"),
    "data.source.path of npz": Differs("npz", "{tmp}/a.npz", "{tmp}/b.npz", "splits"),
    **{f"data.source.{name} of saved_dataset": f"clients/data/test_hugging_face.{test}"
       for name, test in (
        ("path", "test_a_saved_set_is_learned_from"),
        ("label", "test_a_label_is_chosen_among_several"),
        ("drop", "test_without_images_columns_of_numbers_are_features"),
        ("size", "test_images_are_resized"),
        ("owner", "test_a_column_says_whose_an_example_is"),
    )},
    "data.source.path of image_folder":
        "clients/data/test_image_folder.test_a_folder_of_images_is_learned_from",
    "data.source.size of image_folder":
        "clients/data/test_image_folder.test_a_size_resizes_each",
    **{f"data.source.{name} of table": f"clients/data/test_user_table.{test}" for name, test in (
        ("path", "test_a_table_is_learned_from"),
        ("label", "test_any_column_may_be_the_labels"),
        ("drop", "test_columns_are_features_and_the_last_is_that_of_texts_in_their_order"),
        ("one_hot", "test_texts_become_columns_of_0_and_1"),
        ("numbers", "test_a_regression_predicts_the_column_in_units_of_its_deviation"),
        ("test_path", "test_mean_and_deviation_are_those_of_the_train_set"),
    )},
    "data.source.owner of table":
        "clients/partition/test_natural.test_a_tables_hospitals_are_the_clients_on_both_pools",
    "partition.grouped of natural":
        "clients/partition/test_natural.test_grouped_deals_all_of_them_out",
    "partition.min_examples of natural":
        "clients/partition/test_natural.test_as_many_clients_as_owners_are_they_in_their_order",
    **dict.fromkeys(
        ("data.source.num_classes of npz", "data.proxy_source.num_classes of npz"),
        "clients/data/test_user_file.test_given_a_number_of_classes_labels_are_taken_as_they_are",
    ),
    **dict.fromkeys(
        ("data.source.layout of npz", "data.proxy_source.layout of npz"),
        "clients/data/test_user_file.test_images_that_look_like_channels_last_want_a_word",
    ),
    **dict.fromkeys(
        (f"data.source.{name} of shakespeare" for name in ("num_speakers", "length", "num_tokens")),
        "clients/data/test_texts.test_each_number_changes_what_is_read",
    ),
    "data.source.include_valid of cinic10": (
        "clients/data/test_built_in_sets.test_image_folders_are_read"
    ),
    **dict.fromkeys(
        ("data.source.coarse of cifar100", "data.proxy_source.coarse of cifar100"),
        "clients/data/test_original_files.test_cifar100_has_classes_and_superclasses",
    ),
    "data.source.cut of emnist":
        "clients/data/test_original_files.test_letters_stand_upright_and_begin_with_0",
    "data.root": Differs("mnist", "/nowhere/a", "/nowhere/b", "splits"),
    "data.proxy_share": Differs("built", 0.2, 0.5, "sizes"),
    "data.proxy_condition": Differs("built", None,
                                    {"_target_": "clients.data.proxy_conditions.noisy_inputs",
                                     "_partial_": True}, "splits"),
    "data.proxy_condition.classes of only_classes":
        Differs("built proxy_condition=only_classes", [0, 1], [0, 2], "splits"),
    "data.proxy_condition.deviation of noisy_inputs":
        Differs("built proxy_condition=noisy_inputs", 0.1, 0.5, "splits"),
    "data.proxy_condition.share of contaminated":
        Differs("built proxy_condition=contaminated", 0.1, 0.5, "splits"),
    "data.proxy_source": Differs("built", None, {"_target_": "clients.data.blobs", "seed": 3},
                                 "splits"),
    "data.proxy_source.path of npz": Differs("proxy", "{tmp}/a.npz", "{tmp}/b.npz", "splits"),
    "data.proxy_source.include_valid of cinic10":
        "clients/data/test_built_in_sets.test_image_folders_are_read",
    "data.limit": Differs("built", None, 40, "sizes"),
    "data.proxy_limit": Differs("built", None, 5, "sizes"),
    "data.test_limit": Differs("built", None, 5, "sizes"),
    "partition.partitioner of from_partitioner":
        "clients/partition/test_flower.test_a_config_names_one_and_its_seed_is_its_own",
    "partition.classes of classes_per_client":
        Differs("built partition=classes_per_client", 2, 3, "partition"),
    "partition.shards_per_client of shards": Differs("built partition=shards", 2, 3, "partition"),
    "partition.balance of dirichlet": Differs("built partition=dirichlet", False, True,
                                              "partition"),
    "partition.min_examples of dirichlet":
        Differs("built partition=dirichlet partition.dirichlet_concentration=0.1", 1, 12,
                "partition"),
    "partition.min_examples of quantity_skew":
        Differs("built partition=quantity_skew partition.dirichlet_concentration=0.1", 1, 9,
                "partition"),
    **{f"partition.dirichlet_concentration of {name}":
       Differs(f"built partition={name}", 0.5, 5.0, "partition")
       for name in ("dirichlet", "dirichlet_per_client", "quantity_skew")},
    **{f"partition.{name} of {kind}": Differs(f"built partition={kind}", one, other, "partition")
       for kind, name, one, other in (
           ("long_tailed", "ratio", 10, 2), ("step_imbalance", "ratio", 10, 2),
           ("missing_classes", "missing", 1, 2), ("duplicated", "share", 0.5, 0.1),
           ("capped", "most", 5, 9), ("power_law", "classes", 2, 3),
           ("power_law", "spread", 2.0, 0.0), ("power_law", "min_examples", 5, 1),
       )},
    "partition.path of from_file": Differs("built partition=from_file", "{tmp}/a.json",
                                           "{tmp}/b.json", "partition"),
}  # fmt: skip

TOPOLOGY: dict[str, Differs | str] = {
    "topology": Differs("gossip", ("topology=ring",), ("topology=none",), "error"),
    **{f"topology.graph.{key}": Differs(f"built topology={name}", one, other, "graph")
       for name, key, one, other in (
           ("torus", "rows of torus", 2, 4),
           ("k_regular", "degree of k_regular", 4, 3),
           ("k_regular topology.graph.degree=2", "connected of k_regular", True, False),
           ("erdos_renyi", "edge_probability of erdos_renyi", 0.5, 0.9),
           ("erdos_renyi topology.graph.edge_probability=0.15 topology.require_connected=false",
            "connected of erdos_renyi", True, False),
           ("sequence", "rules of sequence", [RING], [STAR]),
           ("epidemic", "receivers of epidemic", 2, 3),
           ("clusters", "num_clusters of clusters", 2, 4),
           ("clusters topology.require_connected=false", "bridges of clusters", True, False),
           ("from_file", "path of from_file", "{tmp}/a.csv", "{tmp}/b.csv"),
           ("from_file topology.graph.path={tmp}/a.csv topology/mixing=push_sum",
            "directed of from_file", False, True),
           ("static_exponential topology/mixing=uniform", "directed of static_exponential", False,
            True),
           ("small_world", "degree of small_world", 4, 2),
           ("small_world", "rewiring_probability of small_world", 0.2, 0.9),
       )},
    "topology.redraw of Topology": Differs("built topology=k_regular", False, True, "graph"),
    "topology.require_connected of Topology":
        Differs("built topology=clusters topology.graph.bridges=false", True, False, "graph"),
    **{f"availability.{name} of Availability": Differs(f"peers{more}", one, other, LINES)
       for name, one, other, more in (
           ("sleep_probability", 0.0, 0.5, ""),
           ("drop_probability", 0.0, 0.5, ""),
           ("late_probability", 0.0, 0.7, ""),
           ("late_rounds", 1, 3, " availability.late_probability=0.9"),
           ("leave_probability", 0.0, 0.5, ""),
           ("join_probability", 0.0, 0.9, " availability.present_share=0.5"),
           ("present_share", 1.0, 0.5, ""),
       )},
}  # fmt: skip
