"""Every shipped config composes with targets that exist; wrong input is refused with its name."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from omegaconf import DictConfig

from clients.data import classification
from conf.command_line_errors import explain, without_plus
from conf.errors import ConfigError
from conf.ranges import check_ranges
from conf.schema import check_keys, check_targets
from conf.tracking import tracking_options
from tests.composing import composed

OWN = SimpleNamespace(name="own", task=classification((4,), 3), label_values=None)
ODD = SimpleNamespace(name="odd", labels=np.array([0, 2, 1]), label_values=None)
SPLITS = SimpleNamespace(proxy=ODD, private=OWN)


def composed_and_checked(*overrides: str) -> DictConfig:
    config = composed(*overrides)
    check_keys(config)
    check_ranges(config)
    check_targets(config)
    return config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rounds=0", "rounds=0: expected an integer >= 1"),
        ("tracking.figures_every=-1", "tracking.figures_every=-1: expected an integer >= 0, 0 for"),
        ("quorum=1.5", r"quorum=1.5: expected a number in \(0, 1\]"),
        ("sim.workers=0", "sim.workers=0: expected an integer >= 1, or null"),
        ("clients.training.epochs=-1", "clients.training.epochs=-1: expected an integer >= 0"),
        ("clients.training.batch_size=1.5", "clients.training.batch_size=1.5: expected an integer"),
        (
            "clients.training.optimizer.lr=0",
            "clients.training.optimizer.lr=0: expected a number > 0",
        ),
        ("clients.training.epochs=many", "clients.training.epochs='many': expected an integer"),
        ("data.proxy_share=1", r"data.proxy_share=1.0: expected a number in \[0, 1\)"),
        (
            "strategy=ffl strategy.rule.temperature=0",
            "strategy.rule.temperature=0: expected a number > 0",
        ),
        (
            "strategy=ffl strategy.teaching.optimizer.lr=-1",
            "strategy.teaching.optimizer.lr=-1: expected a number > 0",
        ),
        ("clients/messenger=fml clients.messenger.batch_size=0", "clients.messenger.batch_size=0"),
        *(
            (
                f"clients/profile={kind} clients.profile.{key}={value}",
                f"clients.profile.{key}={is_}",
            )
            for kind, key, value, is_ in (
                ("alike", "multiplications_per_s", "0", "0: expected a number > 0"),
                ("alike", "download_bytes_per_s", "-1", "-1: expected a number > 0"),
                ("lognormal", "upload_bytes_per_s", "fast", "'fast': expected a number > 0"),
                ("alike", "latency_s", "-0.1", "-0.1: expected a number >= 0"),
                ("alike", "latency_s", "inf", "inf: expected a number >= 0"),
                ("two_speeds", "slow_share", "1.1", r"1.1: expected a number in \[0, 1\]"),
                ("two_speeds", "slowdown", "0.5", "0.5: expected a number >= 1"),
                ("lognormal", "spread", "-1", r"-1: expected a number in \[0, 10\]"),
            )
        ),
        ("seed=-1", "seed=-1: expected an integer >= 0"),
    ],
)
def test_numbers_out_of_range_name_key_value_and_range(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_ranges(composed(*override.split()))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("strategy.feed_back=2", "strategy.feed_back=2: expected true or false or a text"),
        ("strategy.loss.scale_by_t2=1", "strategy.loss.scale_by_t2=1: expected true or false"),
        ("strategy.ensemble.temperature=abc", "strategy.ensemble.temperature='abc': expected a nu"),
        ("strategy.ensemble.temperature=2", None),
        ("strategy.fraction=all", "strategy.fraction='all': expected a number"),  # a part takes it
        ("partition.classes=2.5", "partition.classes=2.5: expected an integer"),
        ("clients.training.epochs=true", "clients.training.epochs=True: expected an integer"),
        ("clients.training.max_grad_norm=1", None),
        ("student.hidden=[64]", "student.hidden"),
    ],
)
def test_values_of_the_wrong_type_name_key_value_and_type(
    override: str, message: str | None
) -> None:
    config = composed(override)
    if message is None:
        check_targets(config)
        return
    with pytest.raises(ConfigError) as caught:
        check_targets(config)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+colour=red", "unknown key 'colour'"),
        ("+seeds=3", "unknown key 'seeds'; did you mean 'seed'?"),
        ("+clients.trainings=3", "unknown key 'clients.trainings'; did you mean 'training'?"),
        ("+clients.training.epoch=3", "'clients.training.epoch'; did you mean 'epochs'?"),
        ("+strategy.ensemble.temprature=3", "ensemble.temprature'; did you mean 'temperature'?"),
        (
            "+strategy.temperature=3",
            "unknown key 'strategy.temperature'; it is called strategy.ensemble.temperature now",
        ),
        ("+strategy.teachers.fraction=0.5", "unknown key 'strategy.fraction'"),  # said twice
        ("+strategy.missing=own", "unknown key 'strategy.missing'"),  # no part here takes it
        (
            "student._target_=clients.models.logistic_regression",
            "logistic_regression does not take it; ~student.channels ~student.hidden leaves out w",
        ),
        ("clients.training.optimizer._target_=torch.optim.Adam", "momentum': torch.optim.Adam doe"),
        ("clients.messenger=fml", "an option is chosen by clients/messenger=fml"),
        ("strategy.scorer=uniform", "an option is chosen by strategy/scorer=uniform"),
    ],
)
def test_keys_that_nothing_reads_are_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        composed_and_checked(override)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("clients.models.resnet88", "'clients.models' has no 'resnet88'; did you mean 'resnet8'?"),
        ("clients.model.resnet8", "cannot import 'clients.model'"),
        ("resnet8", "cannot import ''"),
    ],
)
def test_a_wrong_architecture_names_the_nearest(target: str, message: str) -> None:
    key = "clients.architectures.mlp.model._target_"
    with pytest.raises(ConfigError) as caught:
        check_targets(composed(f"{key}={target}"))
    assert message in str(caught.value)
    assert "clients.architectures.mlp.model" in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "hint"),
    [
        (["rouns=3"], "unknown key 'rouns'; did you mean 'rounds'?"),
        (["num_clients=3"], "unknown key 'num_clients'; did you mean 'clients.num_clients'?"),
        (["clients.training.epoch=3"], "did you mean 'clients.training.epochs'?"),
        (["strategy=dlda"], "'strategy=dlda': no such option; did you mean 'dlad'?"),
        (["availability=null"], "'availability=null': expected the name of an option (all: alw"),
        (["partition=3"], "'partition=3': expected the name of an option (all: capped, classes"),
        (["strategy/scorer=margn"], "did you mean 'margin'?"),
        (["strategy=ffl", "strategy.epochs=3"], "it is called strategy.teaching.epochs now"),
        (["strategy.epochs=3"], "strategy.teaching.epochs now; only with strategy=codistillation,"),
        (["strategy.proxy_chunks=3"], "it is called strategy.proxy_split.chunks now"),
        (["strategy.weight_cap=0.3"], "it is called strategy.ensemble.weight_cap now"),
        (
            ["strategy=cpfl", "strategy.second.answers=uint8"],
            "it is called strategy.second.ensemble.answers now",
        ),
        (["sim=inline", "sim.workers=2"], "unknown key 'sim.workers'; only with sim=auto, ray"),
        (
            ["strategy=ffl", "strategy/loss=kl"],
            "only with strategy=cronus, dafkd, distillation, dlad",
        ),
        (["strategy=ffl", "strategy/rule=dml", "strategy/head=none"], None),
        (
            ["strategy=ffl", "strategy.teaching.taps.mlp=x"],
            "put a plus before: +strategy.teaching.taps.mlp=...",
        ),
        (["probes.mine={_target_: my.probe}"], "put a plus before: +probes.mine=..."),
        (["~probes.calibratio"], "unknown key 'probes.calibratio'; did you mean 'probes.calib"),
        (
            ["+probes=mine"],
            "no such option; did you mean 'none'? "
            "(all: attacked, none, own_examples, personal, robustness, standard, with_features)",
        ),
        (["+probes=none"], "leave out the plus: probes=none"),
        (["+rounds=3"], "leave out the plus: rounds=3"),
        (["strategy._target_=f.FedProx", "strategy.mu=1"], "put a plus before: +strategy.mu=..."),
        (["experiment=byzantine", "rounds=x"], None),
        (["hydra.run.dir=/tmp/x", "rounds=abc"], None),
        (["seed=3"], None),
    ],
)
def test_the_hint_for_what_hydra_refuses(overrides: list[str], hint: str | None) -> None:
    found = explain(overrides, [])
    assert found is None if hint is None else hint in str(found)


def test_choices_of_optional_groups_may_have_a_plus() -> None:
    words = ["+experiment=fml", "++debug=fast", "+proxy=mnist", "proxy_condition=only_classes"]
    plain = ["experiment=fml", "debug=fast", "proxy=mnist", "proxy_condition=only_classes"]
    assert without_plus(words) == plain
    assert (composed(*plain).rounds, composed("experiment=fml").rounds) == (1, 10)
    for word in ("+probes=mine", "-m", "+experiments=3", "+data.proxy=x", "proxy=npz"):
        assert without_plus([word]) == [word]


def test_a_probe_is_a_function_or_a_class_and_not_a_value() -> None:
    for words in ("+probes.mine=3", "+probes.mine={most_clients: 3}"):
        with pytest.raises(ConfigError, match="probes.mine=.*: expected a probe, {_target_: "):
            check_keys(composed(words))
    check_keys(composed("+probes.mine={_target_: my_probes.sure}", "~probes.trust"))


def of(splits: SimpleNamespace) -> SimpleNamespace:
    """Ten clients of a federation."""
    return SimpleNamespace(splits=splits, architectures=["mlp"] * 10)


def test_what_the_tracker_is_told() -> None:
    splits, labels = SPLITS, SPLITS.proxy.labels
    told = tracking_options(config := composed("tracking.watch=[0,9]"), of(splits), begins=True)
    assert yaml.safe_load(told.pop("config_text"))["tracking"]["watch"] == [0, 9]
    assert list(told.pop("probes")) == list(config.probes)
    assert told == {
        "figures_every": 20, "watch": [0, 9], "choices": {"seed": 0}, "proxy_labels": labels,
    }  # fmt: skip
    assert tracking_options(composed(), of(splits), begins=False)["choices"] == {}
    for watch in ("[0,10]", "[-1]"):
        with pytest.raises(ConfigError, match=r"there is no client (10|-1), expected 0\.\.9"):
            tracking_options(composed(f"tracking.watch={watch}"), of(splits), begins=True)


@pytest.mark.parametrize(
    ("words", "labelled"),
    [
        ([], True),
        (["tracking.proxy_labels=false"], False),
        (["proxy=mnist"], False),
        (["proxy=mnist", "tracking.proxy_labels=true"], True),
    ],
)
def test_labels_of_another_data_set_are_compared_with_only_if_told(
    words: list[str], labelled: bool
) -> None:
    told = tracking_options(composed(*words), of(SPLITS), begins=True)
    assert (told["proxy_labels"] is SPLITS.proxy.labels) == labelled
    assert labelled or told["proxy_labels"] is None


def test_strategies_that_need_no_proxy_set_may_have_none() -> None:
    none = SimpleNamespace(name="none", labels=np.zeros(0, np.int64), label_values=None)
    splits = SimpleNamespace(proxy=none, private=SPLITS.private)
    assert tracking_options(composed(), of(splits), begins=True)["proxy_labels"] is none.labels


def test_labels_that_no_client_has_are_refused() -> None:
    own = SimpleNamespace(task=classification((4,), 2), label_values=None)
    few = SimpleNamespace(proxy=ODD, private=own)
    with pytest.raises(ConfigError, match=r"proxy_labels=true: odd: labels lie in 0\.\.2, exp"):
        tracking_options(composed(), of(few), begins=True)


def test_labels_of_a_proxy_set_are_those_of_the_clients_or_not_compared_with() -> None:
    def splits(values: tuple[int, ...] | None) -> SimpleNamespace:
        labels = np.arange(3)
        proxy = SimpleNamespace(name="shared.npz", labels=labels, label_values=values)
        task = classification((4,), 3)
        clients = SimpleNamespace(name="own.npz", task=task, label_values=(1, 2, 3))
        return SimpleNamespace(proxy=proxy, private=clients)

    words = "proxy=npz", "data.proxy_source.path=a.npz", "tracking.proxy_labels=true"
    told = tracking_options(composed(*words), of(splits((1, 2, 3))), begins=True)
    assert told["proxy_labels"] is not None
    for values in (None, (1, 2, 4)):
        with pytest.raises(ConfigError, match=r"labels=true: shared\.npz and own\.npz do not numb"):
            tracking_options(composed(*words), of(splits(values)), begins=True)


def test_default_methods_differ_in_the_axes_their_names_say() -> None:
    dlad, plain = composed("strategy=dlad").strategy, composed("strategy=distillation").strategy
    differing = {key for key in dlad if dlad[key] != plain[key]}
    assert differing == {"scorer", "discriminator"}
    targets = [composed(f"strategy/scorer={s}").strategy.scorer["_target_"]
               for s in ("own_odds", "own_probability", "uniform")]  # fmt: skip
    assert all(a != b for a, b in itertools.combinations(targets, 2))


@pytest.mark.parametrize("training", ["sgd", "adam", "kept_sgd"])
def test_optimizer_and_schedule_are_chosen_by_name(training: str) -> None:
    words = "clients/training/optimizer=adamw", "clients/training/scheduler=step"
    node = composed(f"clients/training={training}", *words, "rounds=7").clients.training
    assert node.optimizer == {
        "_target_": "torch.optim.AdamW", "_partial_": True, "lr": 0.005, "weight_decay": 0.01,
    }  # fmt: skip
    assert node.scheduler._target_ == "torch.optim.lr_scheduler.StepLR"
    cosine = composed("clients/training/scheduler=cosine", "rounds=7").clients.training.scheduler
    assert cosine.T_max == 7
    assert composed().clients.training.scheduler is None
