"""Every bug of the museum does what its flag says, and the part without the flag does not."""

import json

import pytest
import torch

from utils.sae.model import SAE, SAEConfig
from utils.sae.museum import (
    auxiliary_ratio, certainties, drift, examples_of, explained, in_own_units, length_spread, reading_order, train_two, value_when_on,
)
from utils.sae.training import TrainingConfig

CFG, TRAINING = SAEConfig(8, 24, 3), TrainingConfig(steps=12, batch_size=32)


@pytest.fixture(scope="module")
def rows():
    return torch.randn(256, 8, generator=torch.Generator().manual_seed(0))


def test_two_processes_hold_one_sae(rows):
    first, second = train_two(rows, CFG, TRAINING)
    assert drift(first, second) == 0 and length_spread(first) == pytest.approx(1, abs=1e-5)
    alone, other = train_two(rows, CFG, TRAINING, unsynchronised=True)
    assert drift(alone, other) > 0.01
    tilted, _ = train_two(rows, CFG, TRAINING, wrong_axis=True)
    assert length_spread(tilted) > 1.1


def test_the_bias_belongs_to_the_space(rows):
    sae, mean = SAE(CFG).requires_grad_(False), torch.full((8,), 30.0)
    there = rows * 5 + mean
    right, wrong = (explained(in_own_units(sae, mean, 5.0, wrong_space=flag), there) for flag in (False, True))
    assert right == pytest.approx(explained(sae, rows), abs=1e-4) and wrong < right - 1


def test_dead_latents_that_write_nothing_leave_the_error(rows):
    sae = SAE(CFG).requires_grad_(False)
    sae.b_dec += 0.5
    assert auxiliary_ratio(sae, rows) == pytest.approx(1, abs=1e-6)
    assert auxiliary_ratio(sae, rows, other_decode=True) != pytest.approx(1, abs=0.01)


def test_names_codes_and_answers():
    names = [f"{i}.bin" for i in range(12)]
    by_number = lambda found: sorted(found, key=lambda name: int(name[:-4]))  # noqa: E731
    assert reading_order(names, by_number) == names
    assert reading_order(names, by_number, as_words=True)[1] == "1.bin" and reading_order(names, by_number, as_words=True)[2] == "10.bin"
    values, indices = torch.tensor([[3.0, 1.0], [2.0, 0.0]]), torch.tensor([[0, 1], [1, 2]])
    assert examples_of(values, indices, 4)[0].tolist() == [1, 2, 0, 0] and examples_of(values, indices, 4)[1] == 2
    assert examples_of(values, indices, 4, one_latent_a_row=True)[0].tolist() == [1, 1, 0, 0]
    assert value_when_on(values, indices, 4).tolist() == [3, 1.5, 0, 0]
    assert value_when_on(values, indices, 4, unguarded=True).isnan().sum() == 2
    answers = [json.dumps({"certainty": value}) for value in (1, 0.5, True, "high")]
    assert certainties(answers) == [1.0, 0.5] and certainties(answers, floats_only=True) == [0.5]
