"""A direction that is taken out everywhere, and the luck of random readers."""

from __future__ import annotations

import pytest
import torch

from utils.hooks import InterventionError, attn_out, is_edited, mlp_out, resid_post, resid_pre, run_with_cache
from utils.probes import ProbeError, auroc
from utils.steering.directions import erase, lead_over_luck, luck_of_random_readers, without_part


def test_what_is_left_is_orthogonal_and_the_rest_is_kept(direction):
    acts, along = torch.randn(3, 5, 24, generator=torch.Generator().manual_seed(1)), 7.0 * direction()
    left = without_part(acts, along)
    assert (left @ along).abs().max() < 1e-4
    taken = acts - left
    torch.testing.assert_close(taken, (acts @ direction())[..., None] * direction(), atol=1e-5, rtol=0)


def test_an_erased_direction_is_in_no_layer_and_comes_back_afterwards(model, direction):
    tokens = model.to_tokens("The city of Paris is in France .")
    names = [resid_pre(0), *(resid_post(layer) for layer in range(model.cfg.n_layers))]
    plain = run_with_cache(model, tokens, names)
    with erase(model, 3.0 * direction()):
        erased = run_with_cache(model, tokens, [*names, attn_out(1), mlp_out(1)])
    assert all((found @ direction()).abs().max() < 1e-4 for found in erased.values())
    assert all((found @ direction()).abs().max() > 0.1 for found in plain.values())
    assert not is_edited(model)
    torch.testing.assert_close(run_with_cache(model, tokens, names), plain)


def test_erasing_while_nothing_runs_is_loud(model, direction):
    with pytest.raises(InterventionError, match="never ran"), erase(model, direction()):
        pass


def test_luck_is_between_chance_and_the_best_and_depends_on_the_seed_alone():
    labels = torch.arange(40) % 2
    noise = torch.randn(40, 16, generator=torch.Generator().manual_seed(2))
    luck = luck_of_random_readers(noise, labels, seed=3)
    directions = torch.randn(16, 200, generator=torch.Generator().manual_seed(3))
    found = torch.tensor([auroc(noise @ one, labels) for one in directions.T])
    turned = torch.maximum(found, 1 - found)
    assert 0.5 < luck < turned.max() and (turned >= luck).double().mean() == pytest.approx(0.1, abs=0.011)
    assert luck == luck_of_random_readers(noise, labels, seed=3) != luck_of_random_readers(noise, labels, seed=4)
    with pytest.raises(ProbeError):
        luck_of_random_readers(noise, labels * 0)


def test_the_lead_is_the_auroc_minus_the_luck_on_the_same_rows():
    labels, pairs = torch.arange(60) % 2, torch.arange(60) // 2
    noise, along = torch.randn(60, 16, generator=torch.Generator().manual_seed(2)), torch.eye(16)[0]
    seen = noise + 3 * labels[:, None] * along
    found = lead_over_luck(seen, along, labels, pairs, seed=3)
    assert found.value == pytest.approx(auroc(seen @ along, labels) - luck_of_random_readers(seen, labels, seed=3), abs=1e-6)
    assert 0 < found.low < found.value < found.high
    assert lead_over_luck(noise, along, labels, pairs, seed=3).low < 0
    with pytest.raises(ProbeError):
        lead_over_luck(noise, along, labels * 0, pairs)
