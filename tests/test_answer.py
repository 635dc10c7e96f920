"""One answer, judged. `utils.course.checking.check` runs this file with the learner's function; CI with the references."""

from utils.course.exercises import exercise_names, find_exercise
from utils.course.judging import CHECK_SEEDS, judge


def pytest_generate_tests(metafunc):
    learner = metafunc.config.pluginmanager.get_plugin("learner")
    answers = [(learner.exercise, learner.answer)] if learner else [
        (exercise := find_exercise(name), exercise.reference) for name in exercise_names()]
    metafunc.parametrize("exercise, answer", answers, ids=[exercise.name for exercise, _ in answers])


def test_answer(exercise, answer, pytestconfig):
    verdict = judge(exercise, answer, seed=CHECK_SEEDS)
    if learner := pytestconfig.pluginmanager.get_plugin("learner"):
        learner.verdict = verdict
    assert verdict.passed, verdict.headline
