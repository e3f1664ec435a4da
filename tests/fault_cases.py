"""For each case of numbers, faults and plug-ins what is right, and which test states it."""

from tests import fault_checks, number_checks
from tests.cases import Case

LATE, TRUST = "strategies/decentralised/test_late_messages.", "conf/test_trust."
AGAINST, RULES = "clients/partition/test_against_flower.", "clients/mutual/test_rules."
DRIFT, OPTIMUM = "sim/analysis/drift/test_", "clients/models/test_discriminator_optimum."
STATISTICS, READING = "sim/report/test_statistics.", "sim/checkpoint/test_reading."
REPLIES, POOLS = "sim/workers/test_reply_validation.", "sim/workers/test_pools."
STRANGERS, STOPPING = "sim/workers/test_strangers.", "sim/checkpoint/test_stop_signals."
WEIGHTS, DEATHS = "strategies/aggregation/test_normalisation.", "sim/workers/test_ray_deaths."
ODD_REPLY = f"{REPLIES}test_an_odd_answer_is_refused_by_name_and_the_others_are_averaged"
ISOLATED = "clients/execution/test_isolation"

NUMBERS = {
    "01_neighbours": Case(
        "rows sum to 1, of a sender's letters the newest counts, pushed mass is neither made nor "
        "lost",
        (f"{LATE}test_a_late_letter_weighs_what_the_round_says_in_which_it_is_used",
         f"{LATE}test_rows_sum_to_one_on_graphs_that_change",
         f"{LATE}test_of_late_letters_of_one_sender_only_the_newest_counts",
         f"{LATE}test_pushed_weight_is_neither_made_nor_lost"),
    ),
    "03_discriminator": Case(
        "discriminators are at the optimum that Newton's method finds",
        (f"{OPTIMUM}test_clouds_that_overlap_are_too",),
    ),
    "04_weights": Case(
        "weights under a cap are those of water filling",
        (f"{WEIGHTS}test_what_is_above_the_cap_is_shared_in_proportion",),
        number_checks.capped_weights_are_water_filling,
    ),
    "05_targets": Case(
        "targets are those of plain numpy, of all answers at once and of parts, in any precision",
        ("strategies/aggregation/test_streaming.test_any_partition_of_the_cohort_gives_the_same_"
         "targets",),
        number_checks.targets_are_those_of_plain_numpy,
    ),
    "07_partition": Case(
        "partitions follow their laws, own every example once, and refuse what cannot be",
        (f"{AGAINST}test_dirichlet_agrees_with_flower",
         f"{AGAINST}test_dirichlet_per_client_agrees_with_flower",
         f"{AGAINST}test_shards_agree_with_flower",
         f"{AGAINST}test_classes_per_client_agrees_with_flower",
         "clients/partition/test_rules.test_every_index_is_owned_exactly_once"),
    ),
    "07b": Case(
        "how many of a class a client has is floored as Flower floors it, to the very table",
        (f"{AGAINST}test_dirichlet_is_the_very_table_of_flower_for_the_same_seed",),
    ),
    "08_train": Case(
        "local training is torch's own loop: order, remainder of one, dropout, clipping, losses",
        ("clients/training/test_loop.test_train_is_plain_sgd_bit_for_bit",),
        number_checks.local_training_is_torchs_own_loop,
    ),
    "09_wide": Case(
        "clients trained together learn what each does alone, in float64 but for rounding",
        ("clients/execution/test_batched_loop.test_together_is_one_by_one",
         "clients/execution/test_batched_loop.test_the_difference_is_rounding",
         "clients/execution/test_stack.test_every_kind_of_batch_norm"),
    ),
    "10_rules": Case(
        "losses of mutual rules, and their gradients, are those of the formulas",
        (*(f"{RULES}test_{name}_by_hand" for name in ("dml", "one", "ffl", "okddip")),
         f"{RULES}test_codistillation_looks_at_stale_answers_after_the_burn_in",
         f"{RULES}test_fedkd_trusts_less_while_both_are_wrong",
         f"{RULES}test_gradients_agree_with_finite_differences"),
    ),
    "11_drift": Case(
        "measures of drift are those of their formulas, with gaps too",
        (f"{DRIFT}output.test_jensen_shannon_is_the_mean_divergence_to_the_mean",
         f"{DRIFT}output.test_disagreement_by_client_by_hand",
         f"{DRIFT}output.test_matrices_hold_each_pair",
         f"{DRIFT}calibration.test_the_reliability_curve_is_scikit_learns",
         f"{DRIFT}recall.test_recall_by_hand", f"{DRIFT}recall.test_forgetting_by_hand",
         f"{DRIFT}teacher_weights.test_weight_mass_by_hand",
         f"{DRIFT}parameters.test_parameter_drift_of_the_known_updates",
         f"{DRIFT}representation.test_unbiased_cka_is_that_of_u_centred_kernels",
         f"{DRIFT}teacher_weights.test_rank_correlation_by_hand",
         "sim/analysis/probes/test_output.test_drift_of_answers_with_gaps_by_hand"),
    ),
    "12_stats": Case(
        "intervals are Student's and the expanded bootstrap's; of nothing, 95 in 100 say nothing",
        (f"{STATISTICS}test_a_paired_difference_by_hand",
         f"{STATISTICS}test_the_expanded_level_is_hesterbergs",
         f"{STATISTICS}test_differences_that_are_alike_have_no_spread",
         f"{STATISTICS}test_where_nothing_differs_no_difference_is_said_in_95_of_100"),
    ),
    "13_bytes": Case(
        "bytes are those of a message that Flower serialises, within a percent",
        ("clients/messages/test_requests.test_size_is_the_data_of_all_arrays_plus_the_names_and_"
         "numbers",),
        number_checks.bytes_are_nearly_what_flower_serialises,
    ),
    "14_duplicates": Case(
        "no image of digits is in two of private, proxy and test set",
        ("clients/data/test_splits.test_private_and_proxy_are_disjoint",),
        number_checks.no_image_of_digits_is_in_two_sets,
    ),
    "15_foreign_dtype": Case(
        "a foreign proxy set is compared by what networks see, whatever its dtype",
        ("clients/data/test_splits.test_a_foreign_proxy_set_is_compared_by_what_networks_see",),
    ),
    "16_chunks_feedback": Case(
        "unlike clients imitate the student on all distilled examples, in how many chunks ever",
        ("clients/handlers/test_answers_by_field.test_an_unlike_client_imitates_the_student_on_all_"
         "distilled_examples",),
    ),
    "17_consensus_buffers": Case(
        "consensus is of parameters and not of running statistics",
        ("strategies/decentralised/test_delivery.test_consensus_is_of_parameters_and_not_of_running"
         "_statistics",),
    ),
    "18_run_rows": Case(
        "where nobody trains and all begin alike nothing moves, on any graph",
        ("strategies/decentralised/test_nobody_trains.test_where_nobody_trains_nothing_moves",),
    ),
    "19_mutual_means": Case(
        "an architecture's clients begin alike, so that the mean of their networks is worth theirs",
        ("strategies/test_common_start.test_peers_of_clients_that_did_not_train_are_what_these_"
         "began_with",
         "strategies/test_common_start.test_the_mean_of_clients_that_did_not_train_is_their_start"),
    ),
    **dict.fromkeys(
        ("20_run", "21_recompute"),
        Case(
            "a run of DLAD computed again: weights, targets, accuracies, bytes, tables, result",
            ("strategies/server/test_distillation.test_one_client_is_ordinary_distillation_bit_for"
             "_bit",),
            number_checks.a_run_is_what_its_parts_say,
        ),
    ),
    "22_states_clock": Case(
        "states are the clients' networks to the bit; simulated seconds are those of the formula",
        ("sim/workers/test_state_serialization.test_a_network_is_the_same_network_again",
         "sim/engine/test_clock.test_a_round_of_dlad_by_hand"),
    ),
    "23_converged": Case(
        "discriminators of real pixels are at their optimum, at any penalty",
        (f"{OPTIMUM}test_pixels_of_digits_are_told_apart_as_well_as_can_be",),
    ),
    "24_off_simplex": Case(
        "a combiner that forgets to divide is refused by name",
        ("strategies/aggregation/test_combiners.test_a_combiner_that_leaves_the_simplex_is_named",
         "conf/test_told_in_one_line.test_a_function_that_cannot_be_used"),
    ),
    "25_n_twice": Case(
        "numbers of examples that would count twice are refused with both keys and the cure",
        ("strategies/aggregation/test_scorer_compatibility.test_n_k_that_would_count_twice_is_"
         "refused_with_both_keys_and_the_cure",),
    ),
}  # fmt: skip

FAULTS = {
    "c_odd": Case(
        "networks that raise, or answer NaN, infinity or another shape, are refused beforehand",
        (f"{POOLS}test_a_client_that_exits_is_counted_on_ray",),
        fault_checks.odd_networks_are_refused_before_anybody_trains,
    ),
    "loop2": Case(
        "what listens beyond this machine answers nobody without the token",
        (f"{STRANGERS}test_nobody_without_the_token_gets_an_answer",),
    ),
    "sec1_delete": Case(
        "a stranger's config.yaml calls no function of ours that is not shipped at that place",
        (f"{TRUST}test_of_ours_only_what_the_shipped_config_has_at_a_place_is_trusted_there",
         f"{TRUST}test_what_a_file_cannot_ask_for"),
    ),
    "sec2_append_rce": Case(
        "nor is anything written to a file that it names",
        ("conf/test_resume.test_targets_from_elsewhere_are_refused",
         f"{TRUST}test_what_a_file_cannot_ask_for"),
    ),
    "sec3_stranger_job": Case(
        "nobody without the token runs a job in a run's own Ray",
        (f"{STRANGERS}test_nobody_without_the_token_gets_an_answer",
         f"{STRANGERS}test_the_token_is_in_the_workers_environment_only"),
    ),
    "sec4": Case(
        "pickles in npz and CIFAR files run nothing, and bytes do not become objects",
        ("clients/data/test_pickles.test_a_foreign_global_is_refused_and_not_run",
         "clients/data/test_pickles.test_nothing_but_array_parts_is_allowed",
         "clients/data/test_user_file.test_wrong_npz_files_are_named"),
        fault_checks.bytes_do_not_become_objects,
    ),
    "sec5_address": Case(
        "the address of a Ray in a run folder is told and not followed",
        (f"{TRUST}test_where_and_with_how_many_workers_it_runs_is_not_the_folders_to_say",),
    ),
    "sec6_symlink": Case(
        "no link in a run folder is followed when it is resumed",
        (f"{TRUST}test_a_folder_with_anything_but_plain_files_is_refused",
         f"{TRUST}test_links_to_nowhere_and_to_folders_are_links_to_a_resume",
         f"{STOPPING}test_the_lock_follows_no_link"),
    ),
    "t10_ray": Case(
        "killed workers change no bit; what kills two is left out; who hangs is ended",
        ("test_fault_matrix.test_a_killed_worker_changes_no_bit",
         f"{POOLS}test_a_client_that_always_kills_its_worker_is_lost_alone_and_run_no_more",
         f"{POOLS}test_a_client_that_hangs_is_ended_on_ray",
         "sim/engine/test_disagreement.test_a_worker_out_of_memory_is_replaced_like_one_that_was_"
         "killed"),
    ),
    "t2b_min": Case(
        "one odd answer is refused by name and the others are averaged",
        (ODD_REPLY, f"{REPLIES}test_an_empty_text_or_list_ends_nothing_and_is_measured",
         f"{REPLIES}test_metrics_of_another_kind_are_refused_where_flower_would_fail_in_the_middle",
         "test_fuzz.test_an_odd_answer_is_a_failure_with_a_name_and_ends_nothing"),
    ),
    "t4b_cluster": Case(
        "two nodes have the bits of one process, also where one is lost; full CPUs are told",
        ("sim/workers/test_two_nodes.test_a_lost_node_changes_no_bit",
         "sim/workers/test_two_nodes.test_it_is_said_that_others_have_all_cpus_and_goes_on_when_one"
         "_is_free"),
    ),
    "t5_byz": Case(
        "what liars claim is clamped, their weight capped, and robust combiners leave them out",
        ("strategies/aggregation/test_scorers.test_a_client_cannot_claim_odds_beyond_the_clamp",
         f"{WEIGHTS}test_no_weight_is_above_the_cap_and_the_order_of_scores_is_kept",
         "strategies/aggregation/test_robust_combiners.test_the_one_that_is_far_out_is_left_out"),
    ),
    "t6_corrupt": Case(
        "damaged and forged checkpoints are refused by file and key, or the one before stands in",
        tuple(f"{READING}test_{name}" for name in (
            "a_damaged_file_is_named", "the_checkpoint_before_a_damaged_one_stands_in",
            "a_manifest_that_is_not_ours_is_refused", "files_of_another_role_are_refused",
            "a_forged_manifest_is_refused_by_the_key_that_is_odd")),
    ),
    "t8_signals": Case(
        "signals, two at once, full disks and changed configs lose no round and mix no two runs",
        (f"{STOPPING}test_a_run_that_is_told_to_stop_finishes_its_round_and_goes_on_with_the_same_"
         "bits",
         f"{STOPPING}test_a_folder_that_a_live_process_uses_is_refused_before_anything_is_written",
         f"{STOPPING}test_a_resume_of_a_folder_in_use_is_refused",
         "sim/checkpoint/test_writing.test_a_disk_that_is_full_costs_the_commit_only",
         "conf/test_resume.test_what_no_bit_depends_on_may_change_and_nothing_else",
         "test_killed_runs.test_killed_in_mid_round_and_resumed_with_more_rounds"),
    ),
    "t9_odd": Case(
        "a client that answers far too much, hangs or kills its worker is lost alone",
        (f"{POOLS}test_a_client_that_hangs_is_ended_inline",
         f"{DEATHS}test_a_dead_worker_is_replaced_and_what_kills_two_is_quarantined"),
        fault_checks.huge_answers_are_their_clients_failure,
    ),
    "v1": Case("arrays in the place of metrics are refused by name", (ODD_REPLY,)),
}  # fmt: skip

PLUGINS = {
    "x_walls": Case(
        "trainers that keep something or exchange modules are named; masks are no classes",
        (f"{ISOLATED}_of_objects.test_no_client_answers_with_an_object_that_keeps_something",
         f"{ISOLATED}.test_a_trainer_that_exchanges_modules_is_named_and_the_next_client_is_as_"
         "alone",
         "clients/training/test_local_context.test_a_trainer_is_told_what_came_the_round_and_the_"
         "phase",
         "clients/population/test_rehearsal.test_a_network_that_cannot_answer_is_named",
         "strategies/server/test_mutual_refusals.test_what_cannot_be_is_refused_before_anybody_"
         "trains"),
        fault_checks.masks_are_no_classes,
    ),
}  # fmt: skip
