"""Small worlds whose truth is known: walks on a grid, the Ivy game, toy features, and the models trained on them."""

from utils.lazy import hand_on

NAMES = {
    "GridWorld": "walks", "IvyGame": "ivy", "train": "training",
    "grid_model": "shared", "ivy_model": "shared", "untrained": "shared",
    "sparse_features": "toy", "toy_dictionary": "toy",
}
hand_on(__name__, NAMES)
