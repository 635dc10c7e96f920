"""Seconds of training steps."""

import pytest

from utils.sae.model import SAEConfig
from utils.sae.timing import WARM_UP, step_seconds
from utils.sae.training import Rows, TrainingConfig, train_sae


def test_every_step_after_the_first_few_is_timed(make_acts):
    acts, cfg, training = make_acts(300), SAEConfig(13, 20, 4), TrainingConfig(steps=9, batch_size=64)
    seconds, history = step_seconds(acts, cfg, training)
    assert len(seconds) == 9 - WARM_UP - 1 and (seconds > 0).all()
    assert history.unexplained.tolist() == train_sae(Rows(acts), cfg, training, progress=False)[1].unexplained.tolist()
    with pytest.raises(ValueError, match="too few to time"):
        step_seconds(acts, cfg, TrainingConfig(steps=5, batch_size=64))
