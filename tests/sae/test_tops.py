"""The strongest examples of every latent, from harvested activations."""

import pytest
import torch

from utils.sae.model import SAE, SAEConfig
from utils.sae.tops import Harvest, commonest, firing, strongest

X = torch.randn(37, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def sae():
    return SAE(SAEConfig(6, 11, 3), seed=2).requires_grad_(False)


@pytest.mark.parametrize("chunk", [5, 37, 100])
def test_strongest_is_a_sort_of_all(sae, chunk):
    rows, values = strongest(sae, X, 4, chunk)
    latents = sae.encode(X)
    torch.testing.assert_close(values, latents.T.topk(4).values)
    torch.testing.assert_close(latents.T.gather(1, rows), values)


def test_too_few_tokens_are_refused(sae):
    with pytest.raises(ValueError, match="3 tokens"):
        strongest(sae, X[:3], 4)


def test_firing_is_where_a_latent_is_above_0(sae):
    assert firing(sae, X, chunk=8).equal(sae.encode(X) > 0)


def test_the_commonest_token_and_its_share():
    token, share = commonest(torch.tensor([[4, 5, 5, 6], [1, 2, 3, 4]]))
    assert token[0] == 5 and share.tolist() == [0.5, 0.25]


def test_contexts_and_sources():
    harvest = Harvest(X[:6], torch.arange(6), torch.tensor([0, 0, 2, 2, 1, 1]), torch.tensor([1, 3, 1, 2, 2, 4]), ["novels", "speeches", "novels"])
    assert harvest.context.tolist() == [0, 0, 1, 1, 2, 2]
    wanted = harvest.from_sources("novels")
    assert wanted.tolist() == [True] * 4 + [False] * 2
    assert harvest.part(wanted).token.tolist() == [0, 1, 2, 3] and harvest.part(wanted).source == harvest.source
