"""What the tests of reading share: a tiny model, an SAE of it, and what it does on random words."""

import numpy as np
import pytest

from utils.reading.browser import FeatureBrowser
from utils.reading.labels.label import Scored
from utils.reading.page import latent_map


@pytest.fixture(scope="session")
def set_up():
    """The source of what `read` gives, for the notebook that Chromium runs."""
    return """
import torch
from utils.hooks import resid_post
from utils.models import tiny_model
from utils.reading.collecting import collect_features
from utils.sae.model import SAE, SAEConfig

model = tiny_model()
model.cfg.model_name = "tiny-llama"
sae = SAE(SAEConfig(24, 150, 5, "tiny-llama", resid_post(1)), seed=3).requires_grad_(False)
sae.b_enc[2] = -1e4
tokens = torch.randint(4, 61, (120, 30), generator=torch.Generator().manual_seed(0))
tokens[:, 0] = 0
stats = collect_features(model, sae, tokens, corpus="random words", progress=False)
"""


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    """A cache of these tests' own; the notebook's kernel inherits it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROBE_TO_STEER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def read(own_cache, set_up):
    """(model, sae, stats): a tiny model, a random SAE of it of 150 latents, of which 2 is dead, what it does on random words."""
    found = {}
    exec(set_up, found)
    return found["model"], found["sae"], found["stats"]


@pytest.fixture(scope="session")
def labels():
    """Two labels as they ship: a good one and a weak one, the latter with what HTML must not take for its own."""
    return {7: Scored("of [[city|town]]", 0.91, 0.83, 0.49, 0.8, 0.42), 3: Scored("[[<script>|city]]", 0.6, 0.52, 0.5, None, 0.01)}


@pytest.fixture
def browser(read, tmp_path):
    return FeatureBrowser(*read, notes=tmp_path / "notes.json")


@pytest.fixture(scope="module")
def alone(read):
    """The two latents that have the most room around them on the map."""
    places = latent_map(read[1])
    apart = np.linalg.norm(places[:, None] - places, axis=2) + 9 * np.eye(len(places))
    return apart.min(1).argsort()[::-1][:2].tolist()


@pytest.fixture(scope="session")
def dot():
    """Where on the screen the dot of a latent is, on a map."""
    return lambda svg, latent: svg.evaluate("""(svg, latent) => {
        const at = 2 * svg.dataset.numbers.split(" ").indexOf(String(latent)), xy = svg.dataset.xy.split(" ").map(Number), box = svg.getBoundingClientRect();
        return {x: box.x + xy[at] / 1000 * box.width, y: box.y + xy[at + 1] / 1000 * box.height}; }""", latent)
