"""Exchanging an attribute of a city: the edit lands where it should, and what is learned is a subspace."""

import pytest
import torch

from utils.data.attributes import QUESTIONS, CityFacts
from utils.hooks import resid_post
from utils.steering.attributes import Cities, exchange_in, mean_subspace, spread_of_means, trained_subspace

HOOK = resid_post(1)
FACTS = CityFacts(["Lima", "Oslo", "Cairo", "Rome", "Paris"],
                  {"country": ["Peru", "Norway", "Egypt", "Italy", "France"], "continent": ["A", "Europe", "Africa", "Europe", "Europe"],
                   "language": ["Spanish", "Norwegian", "Arabic", "Italian", "French"]})


@pytest.fixture(scope="module")
def cities(model):
    return Cities.read(model, FACTS, HOOK)


def test_putting_back_what_was_there_changes_nothing(cities):
    rows = range(5)
    for attribute in QUESTIONS:
        torch.testing.assert_close(cities.asked(attribute, rows, cities.acts), cities.asked(attribute, rows), rtol=1e-2, atol=1e-2)


def test_an_edit_is_felt_whatever_the_batches(cities):
    new = cities.acts[[1, 0, 3, 2, 4]]
    found = cities.asked("country", range(5), new)
    torch.testing.assert_close(found, cities.asked("country", range(5), new, batch_size=2))
    assert not torch.allclose(found, cities.asked("country", range(5)), atol=1e-4)


def test_pairs_have_nothing_in_common(cities):
    base, source = cities.pairs([0, 1, 3, 4], 2, seed=0)
    assert set(zip(base, source)) == {(0, 1), (0, 3), (0, 4)} & set(zip(base, source)) | {(1, 0), (3, 0), (4, 0)}
    assert base.count(0) == 2


def test_cause_and_isolation_are_shares(cities):
    base, source = cities.pairs(range(5), 1, seed=0)
    nothing = cities.disentangled("country", base, source, cities.acts[base])
    gone = {a: cities.switched(a, base, source, cities.acts[base]).float() for a in QUESTIONS}
    torch.testing.assert_close(nothing[:, 0], gone["country"])
    torch.testing.assert_close(nothing[:, 1], 1 - (gone["continent"] + gone["language"]) / 2)


def test_the_spread_of_class_means():
    classes = torch.tensor([0, 0, 1, 1])
    features = torch.tensor([[1.0, 1.0, 5.0], [1.0, 2.0, 5.0], [3.0, 1.0, 5.0], [5.0, 2.0, 5.0]])
    torch.testing.assert_close(spread_of_means(features, classes), torch.tensor([2.25, 0.0, 0.0]))


def test_a_subspace_of_means_exchanges_the_means():
    rng = torch.Generator().manual_seed(0)
    x, classes = torch.randn(30, 8, generator=rng), torch.arange(30) % 3
    basis = mean_subspace(x, classes, 5)
    assert basis.shape == (8, 2)
    torch.testing.assert_close(basis.T @ basis, torch.eye(2), atol=1e-5, rtol=0)
    means = torch.stack([x[classes == c].mean(0) for c in range(3)])
    torch.testing.assert_close(exchange_in(basis, means[:1], means[1:2]), means[1:2])


def test_training_a_subspace_lowers_the_loss_and_is_remembered(cities, tmp_path, monkeypatch):
    monkeypatch.setenv("PROBE_TO_STEER_CACHE", str(tmp_path))
    rows = [0, 1, 2, 3, 4]
    basis = trained_subspace(cities, "country", rows, 3, steps=3, batch_size=4, progress=False)
    torch.testing.assert_close(basis.T @ basis, torch.eye(3), atol=1e-5, rtol=0)
    assert not torch.allclose(basis, mean_subspace(cities.acts, cities.classes("country"), 3))
    monkeypatch.setattr(Cities, "asked", lambda *_, **__: pytest.fail("it was in the cache"))
    assert trained_subspace(cities, "country", rows, 3, steps=3, batch_size=4, progress=False).equal(basis)
