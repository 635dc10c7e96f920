"""All firings of a latent, half by half, against a walk through the stored code."""

import torch

from utils.reading.firings import READING, TESTING, Firings, fifth_of, quiet_places


def test_every_firing_of_a_latent_in_its_half(read):
    _, _, stats = read
    firings = Firings(stats)
    for latent in (0, 2, 57, stats.d_sae - 1):
        value = (stats.code_value.float() * (stats.code_latent == latent)).sum(-1)
        for half in (READING, TESTING):
            mine = value.clone()
            mine[1 - half :: 2] = 0
            values, where = firings.of(latent, half)
            assert where.tolist() == mine.nonzero().tolist() and torch.equal(values, mine[mine > 0])
            assert firings.counts[half, latent] == len(values)


def test_examples_are_firings_in_order_and_places_of_silence(read):
    _, _, stats = read
    firings, quiet = Firings(stats), quiet_places(stats, TESTING, 50)
    latent = int(firings.counts[TESTING].argmax())
    where, values = firings.examples(latent, TESTING, quiet, at_most=7)
    n = int((values > 0).sum())
    assert n == 7 and values[:n].tolist() == sorted(values[:n].tolist(), reverse=True) and (values[n:] == 0).all()
    assert (where[:, 0] % 2 == TESTING).all() and not any(stats.values(latent, c)[p] for c, p in where[n:].tolist())
    assert {tuple(place) for place in where[n:].tolist()} <= {tuple(place) for place in quiet.tolist()}


def test_quiet_places_are_usual_tokens_of_their_half(read):
    _, _, stats = read
    where = quiet_places(stats, READING, 40)
    assert len(where.unique(dim=0)) == 40 and (where[:, 0] % 2 == READING).all() and (where[:, 1] > 0).all()


def test_fifths_run_from_the_strongest_down():
    values = torch.tensor([9.0, 8, 7, 6, 5, 4, 3, 2, 1, 0.5, 0, 0])
    assert fifth_of(values).tolist() == [4, 4, 3, 3, 2, 2, 1, 1, 0, 0, -1, -1]
    assert fifth_of(torch.zeros(3)).tolist() == [-1] * 3
