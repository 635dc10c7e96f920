"""The scorers: known texts get the scores they should, and every refusal says why."""

from __future__ import annotations

import math

import pytest
import torch

from utils.hooks import resid_post
from utils.steering.generating import token_log_probs
from utils.steering.reach import SteeringError
from utils.steering.scoring import (
    difference, distinct_n, keyword_rate, kl_on_neutral, language, languages, mean_score, perplexity, sentiment, share_score,
)
from utils.steering.steering import steer

HERE = resid_post(1)
TEXTS = ["The city of Paris is in France .", "A dog is larger than two cities . The key is in the cabinet .", "The keys near the cabinet"]


def test_sentiment_knows_good_from_bad_and_hears_negation():
    texts = ["I love this film, it is wonderful.", "A terrible, horrible day.", "The table is brown.", "This is not good.", "", "This is NOT a good day!"]
    score = sentiment(texts)
    good, bad, none, negated, empty, shouted = score.values.tolist()
    assert good > 0.7 and bad < -0.6 and none == empty == 0
    assert -0.6 < negated < -0.2 and shouted == pytest.approx(negated)
    # "love" is rated 3.2 and "wonderful" 2.7
    assert good == pytest.approx(5.9 / math.sqrt(5.9**2 + 15), abs=1e-6)
    assert score.interval[0] <= score.value <= score.interval[1] and score.value == pytest.approx(score.values.mean().item())


def test_negation_reaches_three_words_and_no_further():
    near, far = sentiment(["not a very good day", "not a day of this good kind"]).values.tolist()
    assert near < 0 < far


def test_languages():
    texts = {"en": "The cat sat on the mat and looked at the sea.", "fr": "Le chat est sur la table et il mange du poisson.",
             "de": "Der Hund läuft durch den Wald und sucht seinen Ball.", "es": "El perro come en la casa de mi abuela.", "it": "Il gatto mangia il pesce nella cucina della nonna.",
             "ru": "Собака бежит через лес."}
    assert languages(list(texts.values())) == list(texts)
    assert languages(["", "12 34 !!"]) == ["", ""]
    assert language(list(texts.values()), "fr").value == pytest.approx(1 / 6)
    assert languages([texts["fr"]], among=("en", "de")) != ["fr"]
    for wrong in (lambda: language(TEXTS, "xx"), lambda: language(TEXTS, "fr", among=("en", "de")), lambda: languages(TEXTS, ("en", "klingon"))):
        with pytest.raises(ValueError):
            wrong()


def test_keyword_rate_and_distinct_n():
    assert keyword_rate(["The sea was calm.", "A seat.", "By the SEA", "sea, sea"], r"\bsea\b").value == 0.75
    score = distinct_n(["the sea the sea the sea", "the sea is blue today", "word", "The the THE the"])
    assert score.values[:2].tolist() == [0.4, 1.0] and score.values[2].isnan() and score.values[3] == pytest.approx(1 / 3)
    assert score.value == pytest.approx((0.4 + 1 + 1 / 3) / 3)
    assert distinct_n(["a b a b", "c d e f"], 1).values.tolist() == [0.5, 1.0]
    with pytest.raises(ValueError, match="at least 1"):
        distinct_n(TEXTS, 0)


def test_a_single_string_is_refused():
    for score in (sentiment, distinct_n, languages, lambda text: keyword_rate(text, "a")):
        with pytest.raises(TypeError, match="list of strings"):
            score("The sea was calm.")


def test_intervals_need_two_texts_and_pairs_need_equal_lists():
    with pytest.raises(ValueError, match="at least 2"):
        mean_score([1.0])
    with pytest.raises(ValueError, match="at least 2"):
        mean_score([1.0, float("nan")])
    with pytest.raises(ValueError, match="cannot be paired"):
        difference(mean_score([1.0, 2.0]), mean_score([1.0, 2.0, 3.0]))


def test_paired_differences_have_the_narrower_interval():
    rng = torch.Generator().manual_seed(0)
    base = torch.randn(60, generator=rng)
    one, other = mean_score(base + 0.5), mean_score(base + 0.05 * torch.randn(60, generator=rng))
    gain = difference(one, other)
    assert gain.value == pytest.approx(one.value - other.value) and gain.high - gain.low < 0.2 * (one.interval[1] - one.interval[0])
    assert gain.low > 0


def test_intervals_hold_the_truth_about_95_times_in_100():
    rng = torch.Generator().manual_seed(1)
    held = 0
    for _ in range(100):
        low, high = mean_score(torch.rand(40, generator=rng)).interval
        held += low <= 0.5 <= high
    assert 88 <= held <= 100


@pytest.mark.parametrize("truth, n", [(0.02, 40), (0.3, 40), (0.5, 20), (0.97, 40)])
def test_intervals_of_shares_hold_the_truth_also_near_none_and_all(truth, n):
    rng = torch.Generator().manual_seed(2)
    scores = [share_score(torch.rand(n, generator=rng) < truth) for _ in range(200)]
    assert all(score.interval[0] <= score.value <= score.interval[1] for score in scores)
    assert sum(score.interval[0] <= truth <= score.interval[1] for score in scores) >= 178


def test_no_hit_among_twenty_does_not_mean_never():
    none, all_of_them = share_score([False] * 20), share_score([True] * 20)
    assert none.interval == (0.0, pytest.approx(0.161, abs=0.001)) and all_of_them.interval == (pytest.approx(0.839, abs=0.001), 1.0)
    with pytest.raises(ValueError, match="no texts"):
        share_score([])


def test_perplexity_is_of_all_tokens_together(model):
    prompts, texts = ["The city of Paris is", "A dog", "The keys"], [" in France .", " is larger than two cities .", ""]
    score = perplexity(model, prompts, texts)
    nats = [-x.double() for x in token_log_probs(model, texts, prompts=prompts)]
    assert score.value == pytest.approx(math.exp(torch.cat(nats).mean()))
    assert score.values[0] == pytest.approx(math.exp(nats[0].mean())) and score.values[2].isnan()
    assert score.interval[0] <= score.value <= score.interval[1]


def test_no_perplexity_of_two_texts_reaches_below_one(model):
    """Nor to less than its value: two unlike texts have Student's interval, some thirteen times as wide as their deviation."""
    score = perplexity(model, ["A dog", "The keys"], [" is", " larger than two cities"])
    assert 1 <= score.interval[0] <= score.value < score.interval[1]


def test_perplexity_of_a_steered_model_is_refused(model, direction):
    with pytest.raises(SteeringError, match="after the `with` block"):
        with steer(model, HERE, direction(), 3.0):
            perplexity(model, TEXTS, TEXTS)


def test_kl_on_neutral_grows_with_the_dose_and_is_zero_for_nothing(model, direction):
    costs = [kl_on_neutral(model, TEXTS, lambda: steer(model, HERE, direction(), dose), batch_size=2).value for dose in (0.0, 1.0, 4.0)]
    assert costs[0] == pytest.approx(0, abs=1e-6) and 0 < costs[1] < costs[2]
    tokens = model.to_tokens(TEXTS[2])[:, :6]
    plain = model(tokens).log_softmax(-1)
    with steer(model, HERE, direction(), 4.0):
        edited = model(tokens).log_softmax(-1)
    by_hand = (plain.exp() * (plain - edited)).sum(-1)[0, 1:].mean()
    assert kl_on_neutral(model, [TEXTS[2]] * 2, lambda: steer(model, HERE, direction(), 4.0)).value == pytest.approx(float(by_hand), rel=1e-4)
    with pytest.raises(SteeringError, match="edited already"):
        with steer(model, HERE, direction(), 3.0):
            kl_on_neutral(model, TEXTS, lambda: steer(model, HERE, direction(), 1.0))
