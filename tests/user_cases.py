"""For each case of users what is right, and which test states it; names are those of the cases."""

from tests import user_checks
from tests.cases import Case
from tests.user_checks import told

BUFFERS, TOLD = "sim/engine/test_model_buffers.", "conf/test_told_in_one_line."
REHEARSAL, STOPPING = "clients/population/test_rehearsal.", "sim/checkpoint/test_stop_signals."
PARTS = "clients/partition/test_"
STRANGERS = "sim/workers/test_strangers."
REFUSED = f"{REHEARSAL}test_what_no_client_can_learn_with_is_refused"

USERS = {
    "01-bn-fedadam": Case(
        "statistics of batches are averaged, not stepped by Adam: no variance is below zero",
        (f"{BUFFERS}test_buffers_are_averaged_and_dtypes_kept",),
    ),
    "02-bn-int-buffers-strategies": Case(
        "counters stay whole numbers under every strategy of Flower's and ours",
        (f"{BUFFERS}test_buffers_are_averaged_and_dtypes_kept",
         f"{BUFFERS}test_averages_of_statistics_and_counters_by_hand"),
    ),
    "03-fedprox-silently-fedavg": Case(
        "FedProx pulls clients to what they were sent; a key that nobody reads fails by name",
        ("clients/training/test_proximal.test_fedprox_pulls_clients_to_what_they_were_sent",
         "clients/handlers/test_unread_keys.test_what_nobody_reads_fails_by_name"),
    ),
    "04-qfedavg-loss-key": Case(
        "a loss of another name is a failure that says which metrics there are",
        check=user_checks.a_missing_loss_is_told_with_what_there_is,
    ),
    "05-dp-wrappers": Case(
        "clipping at the server bounds the update; at clients, which do not clip, it is refused",
        (f"{BUFFERS}test_server_side_clipping_bounds_the_update",
         f"{BUFFERS}test_strategies_that_count_on_what_nobody_does_are_refused",
         f"{BUFFERS}test_a_promise_of_privacy_is_not_given_for_statistics"),
    ),
    "06-xgb-bagging": Case(
        "boosted trees are refused by name before anybody trains",
        (f"{BUFFERS}test_strategies_that_count_on_what_nobody_does_are_refused",),
    ),
    "07-min-nodes-hang": Case(
        "a strategy that would wait for more clients than there are is refused at once, by key",
        ("sim/engine/test_grid.test_a_strategy_that_waits_for_more_clients_is_told_so",),
        user_checks.too_few_clients_are_told_before_anybody_waits,
    ),
    "08-one-example-client-bn": Case(
        "clients of one example fail by name under batch norm, and the others go on",
        ("clients/execution/test_batched_loop.test_a_single_value_per_channel_is_refused_as_alone",
         REFUSED),
        user_checks.one_example_and_batch_norm,
    ),
    "10-lr-over-rounds": Case(
        "a schedule is found from the words of others; a rate that the server sends fails by name",
        ("clients/handlers/test_unread_keys.test_what_nobody_reads_fails_by_name",
         "clients/training/test_schedules.test_the_rate_of_a_round"),
        told({"clients.training.lr_decay=0.9": "clients/training/scheduler"}),
    ),
    "11-proxy-with-other-classes": Case(
        "labels of another data set are not compared with, and refused where that is asked for",
        ("conf/test_config.test_labels_of_another_data_set_are_compared_with_only_if_told",
         "conf/test_config.test_labels_that_no_client_has_are_refused"),
    ),
    "12-grey-rgb-sizes": Case(
        "networks take images of any size and number of channels; a proxy set of others is refused",
        ("clients/models/test_models.test_logits_are_finite_and_every_parameter_learns",
         "clients/models/test_models.test_a_batch_of_one_can_be_trained_on",
         "clients/data/test_splits.test_split_refuses"),
    ),
    "13-npz-labels": Case(
        "whole numbers in a column of their own are classes; all else is refused by file and kind",
        ("clients/data/test_user_file.test_test_labels_that_no_training_example_has_are_refused",
         "clients/data/test_user_file.test_one_class_is_refused_where_it_is_learned_and_not_as_a_"
         "proxy_set",
         "clients/data/test_user_file.test_wrong_npz_files_are_named"),
        user_checks.labels_as_people_have_them,
    ),
    "16-user-models": Case(
        "networks that can learn do; those that cannot are refused before anybody trains, with why",
        (f"{REHEARSAL}test_a_network_that_cannot_answer_is_named",
         f"{REHEARSAL}test_a_network_that_cannot_be_sent_is_named",
         f"{REHEARSAL}test_each_network_answers_one_input_alone", REFUSED),
        user_checks.networks_as_people_bring_them,
    ),
    "17-model-file-habits": Case(
        "imports for type checkers are none of ours; a module that one of ours hides is told",
        (f"{TOLD}test_a_function_that_cannot_be_used",
         "test_wheel.test_a_foreign_module_of_our_name_is_refused",
         "sim/workers/test_ray_cluster.test_a_module_that_would_hide_ours_from_workers_is_named"),
        user_checks.a_file_for_type_checkers,
    ),
    "18-optimizers": Case(
        "steps are torch's own; what torch, or a step of ours, cannot do is refused by key",
        ("clients/training/test_optimizer_steps.test_twenty_steps_are_torchs_own_to_the_bit",
         "clients/training/test_optimizer_steps.test_what_torch_refuses_is_refused_by_name",
         "conf/test_config.test_keys_that_nothing_reads_are_refused", REFUSED),
    ),
    "19-sweep-one-fails": Case(
        "a job that fails ends no other, is named at the end, and the exit code tells",
        ("test_sweeps.test_what_fails_is_recorded_and_what_is_missing_is_run_again",),
    ),
    "20-ray-surroundings": Case(
        "a Ray that cannot be had is one line that names its keys; $RAY_ADDRESS is not followed",
        ("sim/workers/test_ray_cluster.test_whatever_ray_raises_as_it_starts_is_one_line_that_names"
         "_its_settings",
         "sim/workers/test_ray_cluster.test_an_address_where_nobody_speaks_grpc_is_refused",
         "sim/workers/test_ray_cluster.test_ray_is_ones_own_whatever_the_environment_names"),
    ),
    "21-read-only": Case(
        "a place where one may not write is one line that names the key",
        (f"{STOPPING}test_a_place_that_cannot_be_written_to_is_said_in_one_line",
         "conf/test_errors.test_a_disk_that_takes_no_more_is_one_line"),
    ),
    "22-ctrl-c": Case(
        "the round is finished and committed, the exit code tells, a resume has the same bits",
        (f"{STOPPING}test_a_run_that_is_told_to_stop_finishes_its_round_and_goes_on_with_the_same_"
         "bits",
         f"{STOPPING}test_a_run_over_ray_refuses_a_second_one_and_is_stopped_after_a_round"),
    ),
    "23-student-in-plain-pytorch": Case(
        "the student in plain PyTorch has the accuracy that result.json says, on raw pixels too",
        ("test_models_go_home.test_a_student_takes_a_files_pixels_or_normalised_ones",),
    ),
    "25-fractions": Case(
        "a share of clients is rounded, at least one, and out of (0, 1] refused",
        ("strategies/server/test_distillation_requests.test_the_cohort_is_a_fraction_of_the_clients"
         "_and_at_least_one",
         "strategies/server/test_averaging.test_the_cohort_is_a_share_and_at_least_one",
         "conf/test_options_compose.test_every_number_has_a_range_beyond_which_it_is_refused"),
    ),
    "26-many-classes-few-clients": Case(
        "what cannot be cut is refused with key, value and range; too small a proxy set too",
        (f"{PARTS}impossible_requests.test_impossible_requests_name_key_value_and_range",
         f"{PARTS}rules.test_extreme_concentrations_end_in_a_partition_or_a_clear_error"),
        user_checks.few_proxy_examples_are_told_with_their_keys,
    ),
    "27-two-runs-at-once": Case(
        "a folder has one run at a time; two Rays know nothing of each other",
        (f"{STOPPING}test_a_folder_that_a_live_process_uses_is_refused_before_anything_is_written",
         f"{STRANGERS}test_another_ray_has_another_token_and_leaves_nothing"),
    ),
    "28-local-test-and-stopping": Case(
        "stopping, own test shares, W&B, augmentation and losses are found from others' words",
        ("sim/checkpoint/test_early_stop.test_a_run_ends_early_and_goes_on_with_the_same_bits",
         "sim/analysis/probes/test_personal.test_clients_are_better_on_their_own_classes_than_on_"
         "all"),
        told({
            "clients.test_share=0.2": "probes", "data.client_test_share=0.2": "probes",
            "target_accuracy=0.9": "stop.metric=student/accuracy stop.above",
            "early_stopping.patience=3": "stop.patience", "tracking.wandb=true": "probes",
            "clients.training.loss=focal": "clients/objective", "data.augment=true": "clients/view",
        }),
    ),
}  # fmt: skip
