"""Reading what an SAE has found: where its latents fire, on a page and as a game."""

from utils.lazy import hand_on

NAMES = {
    "FeatureBrowser": "browser", "LabellingGame": "game",
    "FeatureStats": "features", "collect_features": "collecting", "course_features": "course_features", "firing": "collecting",
    "excerpt": "looking", "find_latents": "looking", "latents_of": "looking",
}
hand_on(__name__, NAMES)
