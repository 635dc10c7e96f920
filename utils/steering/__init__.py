"""Steering: what is added to the residual stream, what comes of it, and the bench on which to try it."""

from utils.lazy import hand_on

NAMES = {
    "Condition": "steering", "steer": "steering", "usual_norm": "steering", "edit_latents": "latents", "scale": "latents",
    "chat_prompt": "generating", "generate": "generating", "next_token_logits": "generating", "token_log_probs": "generating",
    "difference": "scoring", "distinct_n": "scoring", "keyword_rate": "scoring", "kl_on_neutral": "scoring", "language": "scoring",
    "mean_score": "scoring", "perplexity": "scoring", "sentiment": "scoring", "share_score": "scoring",
    "SteeringBench": "bench",
}
hand_on(__name__, NAMES)
