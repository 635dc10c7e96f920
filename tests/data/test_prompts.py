"""Prompts to steer."""

import pytest

from utils.data.prompts import PROMPTS, split_prompts


def test_split_prompts_draws_no_prompt_twice():
    one, two = split_prompts((40, 40), seed=3)
    assert len(one) == 40 and len(two) == 40 and sorted([*one, *two]) == sorted(PROMPTS)
    assert split_prompts((40, 40), seed=3) == [one, two] != split_prompts((40, 40), seed=4)
    with pytest.raises(ValueError, match="81 prompts were asked for, and there are 80"):
        split_prompts((41, 40))
