"""Sparse autoencoders: what they are, how they are trained, and the course's own."""

from utils.lazy import hand_on

NAMES = {
    "SAE": "model", "SAEConfig": "model", "load_sae": "model", "usual_tokens": "model",
    "History": "training", "Rows": "training", "TrainingConfig": "training", "normalisation": "training", "train_sae": "training",
    "Shards": "shards", "contexts": "shards", "harvest": "shards",
    "load_course_sae": "course_sae", "pca": "course_sae",
}
hand_on(__name__, NAMES)
