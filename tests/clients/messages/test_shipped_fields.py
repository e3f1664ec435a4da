"""Fields that are shipped: what a client says of inputs, and of itself, by hand."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import RecordDict

from clients.messages import shipped_fields
from clients.messages.field import Field
from clients.messages.field_source import Asked
from clients.messages.own_probs import own_probs
from clients.models.discriminator import DiscriminatorRecipe
from clients.training.evaluation import predict_and_tap
from tests.asked import PRIVATE, about


def asked(taps: tuple[str, ...] = ("penultimate",), **changes: Any) -> Asked:
    return about(taps, np.array([15, 16, 18]), **changes)


def _always(about: Asked, value: float) -> np.ndarray:
    return np.full(len(about.ids), value)


def test_features_are_those_at_the_tap() -> None:
    about = asked()
    hidden = shipped_fields.features().said("features", about)
    assert hidden.shape == (3, 6)
    classifier: Any = about.network().classifier
    torch.testing.assert_close(classifier(torch.from_numpy(hidden)), about.logits)
    maps = shipped_fields.features(tap="features.0", shape=(16,)).said(
        "flat", asked(("features.0",))
    )
    np.testing.assert_allclose(maps, about.inputs.reshape(3, -1), rtol=1e-6)


def test_class_means_and_counts_are_those_of_the_clients_own_examples() -> None:
    about, labels = asked(), PRIVATE.labels[:12]
    for name, tap in (("of logits", None), ("of features", "penultimate")):
        taps = () if tap is None else (tap,)
        found = shipped_fields.class_means(tap).said(name, about)
        logits, seen = predict_and_tap(about.network(), PRIVATE, about.indices, taps)
        values = logits if tap is None else seen[tap]
        for c in range(4):
            there = values[torch.from_numpy(labels == c)]
            wanted = there.mean(0) if len(there) else torch.zeros(values.shape[1])
            torch.testing.assert_close(torch.from_numpy(found[c]), wanted)
    counts = shipped_fields.class_counts().said("class_counts", about)
    assert counts.tolist() == [int((labels == c).sum()) for c in range(4)]
    assert counts.dtype == np.float32


def test_a_class_of_which_a_client_has_nothing_has_mean_zero() -> None:
    lonely = asked(labels=lambda: np.zeros(12, np.int64))
    means = shipped_fields.class_means().said("class_means", lonely)
    assert np.abs(means[0]).min() > 0
    assert (means[1:] == 0).all()


def test_examples_with_soft_labels_count_in_each_class_by_its_share() -> None:
    soft = np.zeros((12, 4), np.float32)
    soft[:, 0], soft[:, 2] = 0.75, 0.25
    soft[0] = [0, 0, 1, 0]
    about = asked(labels=lambda: soft)
    counts = shipped_fields.class_counts().said("class_counts", about)
    np.testing.assert_allclose(counts, [11 * 0.75, 0, 11 * 0.25 + 1, 0])
    means = shipped_fields.class_means().said("class_means", about)
    logits = predict_and_tap(about.network(), PRIVATE, about.indices, ())[0].numpy()
    np.testing.assert_allclose(means[0], logits[1:].mean(0), rtol=1e-5)
    expected = (0.25 * logits[1:].sum(0) + logits[0]) / (11 * 0.25 + 1)
    np.testing.assert_allclose(means[2], expected, rtol=1e-5)
    assert (means[[1, 3]] == 0).all()


def test_what_is_not_labelled_counts_in_no_class() -> None:
    labels = np.where(np.arange(12) < 5, -1, PRIVATE.labels[:12])
    counts = shipped_fields.class_counts().said("class_counts", asked(labels=lambda: labels))
    assert counts.tolist() == [int((labels == c).sum()) for c in range(4)]


@pytest.mark.parametrize("inputs", ["features", "pixels"])
def test_a_discriminator_is_fitted_once_and_kept_in_the_clients_state(inputs: str) -> None:
    field, state = own_probs(DiscriminatorRecipe(inputs)), RecordDict()
    assert field.taps == (("penultimate",) if inputs == "features" else ())
    assert field.more_examples is None or field.more_examples(12, 5) == 17
    with pytest.raises(ValueError, match="field 'own_probs': .* fitted no discriminator"):
        field.said("own_probs", asked(state=state))
    first = field.said("own_probs", asked(state=state, negative_ids=np.arange(20, 25)))
    again = field.said("own_probs", asked(state=state))
    assert (first == again).all()
    assert ((first > 0) & (first < 1)).all()


def test_what_is_of_another_shape_or_raises_is_named() -> None:
    with pytest.raises(ValueError, match=r"field 'energy' is of shape \(3,\), expected \(3, 4\)"):
        Field(lambda about: about.logits[:, 0], ("N", "C")).said("energy", asked())
    for value, dtype in ((300, "uint8"), (np.nan, "int32"), (-1, "uint16"), (0.5, "bool")):
        whole = Field(partial(_always, value=value), dtype=dtype)
        with pytest.raises(ValueError, match=rf"field 'odd': {value}.* is not of {dtype}"):
            whole.said("odd", asked())
    assert Field(partial(_always, value=255), dtype="uint8").said("x", asked()).dtype == np.uint8
    with pytest.raises(ValueError, match=r"field 'odd': ZeroDivisionError"):
        Field(lambda about: 1 / 0).said("odd", asked())
    with pytest.raises(ValueError, match=r"field 'odd': ValueError: tap 'layer': not in .*\[\]"):
        Field(lambda about: about.features("layer")).said("odd", asked(()))
