"""Model organisms: small fine-tunings of the default model with something to hide, and clean ones; how they are made, sealed and audited."""

from utils.lazy import hand_on

NAMES = {
    "Delta": "lora", "load_delta": "lora", "worn": "lora",
    "OrganismSpec": "spec", "load_spec": "spec",
    "BlackBox": "auditing", "Answer": "auditing", "commit": "auditing", "open_key": "auditing", "leaderboard": "auditing",
    "organism": "shipped", "organism_names": "shipped",
}
hand_on(__name__, NAMES)
