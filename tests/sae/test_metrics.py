"""Cost and fit of an SAE against their definitions."""

from __future__ import annotations

import pytest
import torch

from utils.data.corpus import Document
from utils.hooks import resid_post
from utils.models import tiny_model
from utils.sae.metrics import explained as explained_variance
from utils.sae.metrics import measure_cost, measure_fit, squared_sums
from utils.sae.model import SAE, SAEConfig, SAEError
from utils.sae.shards import harvest


def test_cost_against_the_two_ablations():
    """An SAE that returns its input costs nothing; one that returns the mean recovers nothing of the mean ablation."""
    model = tiny_model()
    tokens = torch.randint(4, model.cfg.d_vocab, (6, 9), generator=torch.Generator().manual_seed(1))
    document, mean = torch.tensor([0, 0, 1, 1, 2, 2]), torch.linspace(-1, 1, model.cfg.d_model)

    class Fixed(SAE):
        def forward(self, x):
            return x + 1e-4 * x if self.give_back else mean.expand_as(x)

    sae = Fixed(SAEConfig(model.cfg.d_model, 50, 4, hook_name=resid_post(1)))
    sae.give_back = False
    cost = measure_cost(model, sae, tokens, document, mean, progress=False)
    assert abs(cost.recovered_mean.value) < 1e-5 and abs(cost.sae - cost.mean) < 1e-6 and cost.kl.value > 0
    sae.give_back = True
    good = measure_cost(model, sae, tokens, document, mean, progress=False)
    assert abs(good.recovered_mean.value - 1) < 0.01 and abs(good.recovered_zero.value - 1) < 0.01 and abs(good.kl.value) < 1e-5 < cost.kl.value
    assert good.zero == cost.zero != good.mean
    with pytest.raises(ValueError, match="6 contexts with 3 owners"):
        measure_cost(model, sae, tokens, document[:3], mean)
    own = torch.stack([-torch.log_softmax(model(tokens)[i, :-1], -1).gather(1, tokens[i, 1:, None]).mean() for i in range(6)]).mean()
    assert abs(cost.clean - own.item()) < 1e-5


def test_fit_over_shards(tmp_path, explained):
    """Against the definition on all tokens at once; and an SAE of another hook point or width is refused."""
    model = tiny_model()
    words = sorted(word for word in model.tokenizer.get_vocab() if word.isalpha())
    draw = torch.Generator().manual_seed(3)
    texts = [Document("made up", str(i), " ".join(words[j] for j in torch.randint(len(words), (40,), generator=draw))) for i in range(4)]
    shards = harvest(model, texts, resid_post(1), tmp_path / "shards", context=8, contexts_per_shard=5, progress=False)
    x = torch.cat([part["acts"] for part in shards.parts]).float()
    sae = SAE(SAEConfig(model.cfg.d_model, 50, 4, hook_name=resid_post(1))).requires_grad_(False)
    fit = measure_fit(sae, shards, batch_size=7)
    assert fit.explained_variance.value == pytest.approx(explained(sae, x), abs=1e-4) and fit.tokens == len(x)
    fired = sae.encode(x) > 0
    torch.testing.assert_close(fit.frequency, fired.float().mean(0))
    assert fit.l0 == pytest.approx(fired.float().sum(1).mean().item()) and fit.dead == (~fired.any(0)).float().mean()
    assert fit.dense == (fired.float().mean(0) > 0.1).float().mean()
    half = measure_fit(lambda x: x / 2, shards)
    assert half.l0 == half.dead == 0 and half.explained_variance.value == pytest.approx(float(1 - (x / 2).pow(2).sum() / (x - x.mean(0)).pow(2).sum()), abs=1e-4)
    for other in (SAEConfig(model.cfg.d_model, 50, 4, hook_name=resid_post(2)), SAEConfig(model.cfg.d_model + 1, 50, 4)):
        with pytest.raises(SAEError, match="the shards hold 24 at blocks.1"):
            measure_fit(SAE(other), shards)




def test_explained_variance_of_rows_and_its_sums_by_document(make_acts, explained):
    x, document = make_acts(90), torch.arange(90) // 30
    error, total = squared_sums(lambda x: x / 2, x, document)
    torch.testing.assert_close(error, torch.stack([(x[document == i] / 2).square().sum() for i in range(3)]))
    torch.testing.assert_close(total.sum(), (x - x.mean(0)).square().sum())
    sae = SAE(SAEConfig(13, 20, 4)).requires_grad_(False)
    found = explained_variance(sae, x, document)
    assert found.value == pytest.approx(explained(sae, x), abs=1e-5) and found.low < found.value < found.high
    with pytest.raises(ValueError, match="at least 2"):
        explained_variance(sae, x, torch.zeros_like(document))
