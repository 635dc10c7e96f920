"""The whole way from text to labelled, verified latents, as one command that can be stopped at any moment."""

from utils.lazy import hand_on

NAMES = {
    "PipelineConfig": "config", "PipelineError": "config", "load_config": "config",
    "Run": "records", "run_pipeline": "stages", "status": "stages",
    "Evidence": "labels", "Label": "labels",
}
hand_on(__name__, NAMES)
