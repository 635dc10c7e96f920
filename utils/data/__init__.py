"""Every text and label of the course."""

from utils.lazy import hand_on

NAMES = {
    "Document": "corpus", "documents": "corpus", "split_documents": "corpus", "fetch_wheel": "fetch",
    "capital_statements": "truth", "city_statements": "truth", "element_statements": "truth",
    "agreement_sentences": "agreement", "one_token_nouns": "agreement", "split_nouns": "agreement",
    "comparison_statements": "controls", "part_of_speech_phrases": "controls", "speech_snippets": "controls",
    "city_places": "places",
    "TASKS": "tasks", "task_prompts": "tasks", "REFUSAL": "requests", "REQUESTS": "requests",
    "PROMPTS": "prompts", "WORK": "prompts", "WORK_PROMPTS": "prompts", "split_prompts": "prompts",
    "FRENCH": "steering", "MOOD": "steering", "OTHER_TOPICS": "steering", "SEA": "steering",
}
hand_on(__name__, NAMES)
