"""The exercises of chapter 21: cases, named mistakes, other right answers and hints."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from einops import einsum
from sklearn.metrics import roc_auc_score
from torch import Tensor

from utils.course.battery import ALL_COUNTS, NOT_TRAINED, NO_MATRIX, NO_SCALE, NO_THRESHOLD
from utils.course.cases import normal, uniform
from utils.course.exercises import Case, Exercise
from utils.probes import auroc


def _sparse(rng: torch.Generator, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Features that are there half of the time."""
    x = uniform(rng, *shape)
    return torch.where(x < 0.5, 2 * x, 0.0).to(dtype)


# --- best_single_coordinate ----------------------------------------------------------------------------------


def _coordinate_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, n: int, d: int, rises: int, falls: int, loud: int, dtype: torch.dtype) -> Case:
        """One coordinate falls with the label and is best, one rises and is second, one is loud and says little."""
        labels = (torch.arange(n) % 2)[torch.randperm(n, generator=rng)]
        sign = 2 * labels.double() - 1
        acts = 0.02 * normal(rng, n, d)
        acts[:, rises] += torch.where(torch.arange(n) < 3, -sign, sign)
        acts[:, falls] -= torch.where(torch.arange(n) < 1, -sign, sign)
        acts[:, loud] = 500 + 90 * normal(rng, n) + 60 * sign
        acts[0, loud] = 500 - 9000 * sign[0]
        return Case(label, acts.to(dtype), labels)

    yield case("23 rows, 7 coordinates, float64", 23, 7, 2, 4, 5, torch.float64)
    yield case("30 rows, 5 coordinates, float32", 30, 5, 4, 1, 0, torch.float32)
    copies = normal(rng, 12, 1)
    yield Case("coordinates 1 and 3 are copies", torch.cat([torch.zeros(12, 1), copies, torch.zeros(12, 1), copies], 1), (copies[:, 0] > copies[:, 0].median()).long())
    yield Case("every value twice", torch.tensor([[1.0, 2.0, 0.0], [1.0, 1.0, 0.0], [2.0, 2.0, 1.0], [2.0, 1.0, 0.0], [1.0, 1.0, 1.0]]), torch.tensor([0, 0, 1, 1, 0]))
    labels = torch.tensor([0, 0, 1, 1])
    yield Case("one falls exactly as well as another rises", torch.tensor([[1.0, 0.0, 4.0], [1.0, 1.0, 3.0], [1.0, 2.0, 2.0], [1.0, 3.0, 1.0]]), labels).of("boundary")
    yield Case("nothing tells them apart", torch.ones(4, 3), labels).of("extreme")
    yield Case("one row of each class", torch.tensor([[0.0, -3.0], [0.0, -4.0]]), torch.tensor([1, 0])).of("extreme")
    yield Case("one rises exactly as well as another, before it, falls", torch.tensor([[1.0, 4.0, 0.0], [1.0, 3.0, 1.0], [1.0, 2.0, 2.0], [1.0, 1.0, 3.0]]), labels).of("boundary")
    yield Case("one coordinate, which falls", torch.tensor([[4.0], [1.0], [2.0], [0.0]]), labels).of("extreme")
    order = torch.arange(60.0)
    close = torch.stack([order, order.clone()], 1)
    close[29, 0] = 30.5  # above one row of the other class
    yield Case("two coordinates, the second a little better", close, (order >= 30).long()).of("extreme")


best_single_coordinate = Exercise(
    "best_single_coordinate",
    without={**NOT_TRAINED, **ALL_COUNTS},
    difficulty=2,
    importance=4,
    minutes=10,
    learn="How to look for a neuron that stands for something, and what its score looks like when you find one.",
    cases=_coordinate_cases,
    hints=(
        "Treat every coordinate as a probe of its own: its value is the score. Which coordinate's score ranks the rows best, or worst?",
        "Print `acts.shape` and `acts.T.shape`. If you loop over a tensor, which axis do you get one item of at a time?",
        "You want the score whose distance from one half is largest, on either side of it. Which of `scores`, `scores - 0.5` and its "
        "absolute value do you search, and which of them do you return?",
    ),
    verified="coordinates that rise and fall with the label, one that is loud and says little, equal values, copies.",
    next="how good is the best of 576 coordinates if you choose another 576 axes at random?",
)


def _aurocs(acts: Tensor, labels: Tensor) -> Tensor:
    return torch.tensor([auroc(column, labels) for column in acts.T], dtype=torch.float64)


def _picked(scores: Tensor, merit: Tensor) -> tuple[int, float]:
    best = int(merit.argmax())
    return best, scores[best].item()


@best_single_coordinate.mistake(
    "only-rising-coordinates",
    "You took the coordinate with the highest AUROC. One that falls reliably where the label rises says as much, and has an "
    "AUROC near 0.",
)
def _(acts, labels):
    scores = _aurocs(acts, labels)
    return _picked(scores, scores)


@best_single_coordinate.mistake(
    "score-folded",
    "You turned the AUROC of a falling coordinate over. That hides its direction; the specification keeps the AUROC of the raw "
    "values.",
)
def _(acts, labels):
    scores = _aurocs(acts, labels)
    best, value = _picked(scores, (scores - 0.5).abs())
    return best, max(value, 1 - value)


@best_single_coordinate.mistake(
    "largest-difference-of-means",
    "You chose the coordinate whose class means differ most. A loud coordinate, measured in large units, wins that "
    "contest while it says little about the label.",
)
def _(acts, labels):
    gap = acts[labels == 1].mean(0) - acts[labels == 0].mean(0)
    return _picked(_aurocs(acts, labels), gap.abs())


@best_single_coordinate.mistake(
    "distance-from-chance-returned",
    "You returned how far the AUROC is from 0.5. The AUROC itself was asked for.",
)
def _(acts, labels):
    far = (_aurocs(acts, labels) - 0.5).abs()
    return _picked(far, far)


@best_single_coordinate.mistake(
    "last-of-equals",
    "Of coordinates that are equally good you returned the last. The specification wants the first.",
)
def _(acts, labels):
    scores = _aurocs(acts, labels)
    far = (scores - 0.5).abs()
    best = int((far == far.max()).nonzero()[-1])
    return best, scores[best].item()


@best_single_coordinate.mistake(
    "ties-count-for-nothing",
    "A pair of rows with equal values counts one half in an AUROC. You counted it as lost.",
)
def _(acts, labels):
    scores = (acts[labels == 1][:, None] > acts[labels == 0][None]).double().mean((0, 1))
    return _picked(scores, (scores - 0.5).abs())


@best_single_coordinate.mistake(
    "order-exchanged",
    "The AUROC comes first in your answer. The specification returns (coordinate, auroc).",
)
def _(acts, labels):
    scores = _aurocs(acts, labels)
    return _picked(scores, (scores - 0.5).abs())[::-1]


@best_single_coordinate.variant
def _(acts, labels):
    """scikit-learn's AUROC in a loop, the first of the best kept."""
    best = (0, 0.5)
    for i in range(acts.shape[1]):
        score = float(roc_auc_score(labels.numpy(), acts[:, i].numpy()))
        if abs(score - 0.5) > abs(best[1] - 0.5) + 1e-12:
            best = (i, score)
    return best


@best_single_coordinate.variant
def _(acts, labels):
    """All pairs of rows of the two classes."""
    ones, zeros = acts[labels == 1][:, None], acts[labels == 0][None]
    scores = ((ones > zeros).double() + 0.5 * (ones == zeros).double()).mean((0, 1))
    return _picked(scores, (scores - 0.5).abs())


@best_single_coordinate.variant
def _(acts, labels):
    """Python's max, which keeps the first of equals."""
    scores = _aurocs(acts, labels).tolist()
    best = max(range(len(scores)), key=lambda i: abs(scores[i] - 0.5))
    return best, scores[best]


# --- toy_forward ---------------------------------------------------------------------------------------------


def _forward_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, batch: int, instances: int, features: int, hidden: int, dtype: torch.dtype) -> Case:
        x = _sparse(rng, batch, instances, features, dtype=dtype)
        return Case(label, x, normal(rng, instances, hidden, features, dtype=dtype), 0.4 * normal(rng, instances, features, dtype=dtype))

    yield case("4 rows, 3 instances, 5 features, 2 hidden", 4, 3, 5, 2, torch.float64)
    yield case("more hidden dimensions than features", 6, 2, 3, 4, torch.float64)
    yield case("as many instances as features, 3", 5, 3, 3, 3, torch.float64)
    yield case("one instance, float32", 7, 1, 6, 2, torch.float32)
    yield case("one row, one feature, one dimension", 1, 1, 1, 1, torch.float64).of("extreme")
    shape = (2, 1, 3)
    yield Case("features that are negative", normal(rng, *shape), normal(rng, 1, 2, 3), normal(rng, 1, 3)).of("negative")
    start = Case("the biases are 0, as at the start of training, and the gradient", uniform(rng, 3, 2, 4), normal(rng, 2, 2, 4), torch.zeros(2, 4, dtype=torch.float64))
    yield start.with_gradient(W=1, b=2).of("gradient")


toy_forward = Exercise(
    "toy_forward",
    trained=('W', 'b'),
    without={**ALL_COUNTS, "boundary": "both sides of the ReLU agree at 0"},
    difficulty=2,
    importance=5,
    minutes=12,
    learn="How a few dimensions can hold many features, and how hundreds of models run in one einsum.",
    cases=_forward_cases,
    hints=(
        "Write it for one model first: h = W x, then ReLU(W^T h + b). Then give every tensor a letter for the instance, and keep that "
        "letter in every result, so that instances never mix.",
        "Give each axis a letter: x is `bif`, W is `ihf`. Which letter disappears in W x, and which one when W is used the second "
        "time?",
        "Write the two einsums with the letters of the second hint, and print the shape after each: [batch, n_instances, d_hidden], "
        "then that of x. A bias of shape [n_instances, n_features] broadcasts over the batch by itself; what comes last?",
    ),
    verified="several instances with inputs of their own, more and fewer hidden dimensions than features, float32 and float64.",
    next="with one hidden dimension and W = [1, -1], what comes out when only the second feature is there?",
)


def _hidden(x: Tensor, W: Tensor) -> Tensor:
    return torch.einsum("bif,ihf->bih", x, W)


def _back(h: Tensor, W: Tensor) -> Tensor:
    return torch.einsum("bih,ihf->bif", h, W)


@toy_forward.mistake(
    "no-relu",
    "Your model is linear: the ReLU at the output is missing. Without it negative interference stays, and superposition does not "
    "pay.",
)
def _(x, W, b):
    return _back(_hidden(x, W), W) + b


@toy_forward.mistake(
    "relu-before-bias",
    "You added the bias after the ReLU. There it can no longer push small interference below zero.",
)
def _(x, W, b):
    return torch.relu(_back(_hidden(x, W), W)) + b


@toy_forward.mistake(
    "no-bias",
    "The bias is missing. A model needs it to guess the mean of a feature that it ignores, and to silence interference.",
)
def _(x, W, b):
    return torch.relu(_back(_hidden(x, W), W))


@toy_forward.mistake(
    "hidden-relu-too",
    "You put a ReLU on the hidden activation as well. This model's hidden space is linear; the other one comes later in the "
    "chapter.",
)
def _(x, W, b):
    return torch.relu(_back(torch.relu(_hidden(x, W)), W) + b)


@toy_forward.mistake(
    "instances-share-the-first-weights",
    "Every instance uses the weights of instance 0. Each is a model of its own.",
)
def _(x, W, b):
    return torch.relu(x @ W[0].T @ W[0] + b[0])


@toy_forward.mistake(
    "instances-summed",
    "The hidden activations of all instances were added together: the instance letter is missing from the first einsum's result.",
)
def _(x, W, b):
    return torch.relu(torch.einsum("bh,ihf->bif", _hidden(x, W).sum(1), W) + b)


@toy_forward.mistake(
    "bias-on-the-input",
    "You took the bias off the input before W. In this model it is added at the output, before the ReLU.",
)
def _(x, W, b):
    return torch.relu(_back(_hidden(x - b[None], W), W))


@toy_forward.variant
def _(x, W, b):
    """A loop over instances."""
    return torch.stack([F.relu(x[:, i] @ W[i].T @ W[i] + b[i]) for i in range(len(W))], dim=1)


@toy_forward.variant
def _(x, W, b):
    """Batched matrix products; the result is a transposed view."""
    return (torch.baddbmm(b[:, None], x.transpose(0, 1), W.transpose(1, 2) @ W)).clamp(min=0).transpose(0, 1)


@toy_forward.variant
def _(x, W, b):
    """The Gram matrix first, in einops' words."""
    gram = einsum(W, W, "inst hidden f, inst hidden g -> inst f g")
    return torch.relu(einsum(x, gram, "batch inst f, inst f g -> batch inst g") + b)


# --- toy_loss ------------------------------------------------------------------------------------------------


def _loss_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, batch: int, instances: int, features: int, dtype: torch.dtype) -> Case:
        x = _sparse(rng, batch, instances, features, dtype=dtype)
        out = uniform(rng, batch, instances, features, high=2.0, dtype=dtype)
        return Case(label, x, out, uniform(rng, instances, features, low=0.3, high=3.0, dtype=dtype))

    yield case("4 rows, 3 instances, 5 features", 4, 3, 5, torch.float64)
    yield case("6 rows, 2 instances, 2 features", 6, 2, 2, torch.float64)
    yield case("one row, 7 instances, float32", 1, 7, 3, torch.float32)
    yield case("one row, one feature", 1, 1, 1, torch.float64).of("extreme")
    yield Case("targets and outputs that are negative", normal(rng, 3, 2, 4), normal(rng, 3, 2, 4), uniform(rng, 2, 4)).of("negative")
    yield Case("a feature of no importance", normal(rng, 3, 1, 2), normal(rng, 3, 1, 2), torch.tensor([[0.0, 2.0]], dtype=torch.float64)).of("extreme")
    single = Case("one row, and its gradient", normal(rng, 1, 2, 3), normal(rng, 1, 2, 3), uniform(rng, 2, 3))
    yield single.with_gradient(out=1).of("gradient")


toy_loss = Exercise(
    "toy_loss",
    trained=('out',),
    without={**NO_THRESHOLD, **ALL_COUNTS},
    difficulty=1,
    importance=4,
    minutes=6,
    learn="What the toy is asked to do, and why each instance keeps a loss of its own.",
    cases=_loss_cases,
    hints=(
        "Three steps: square the errors, weigh each feature, then get rid of two of the three axes. One of them is added up, the other"
        " averaged.",
        "Print `(importance * (x - out) ** 2).shape`. Which of the three axes must be left in the end?",
        "One of the two axes takes `.sum`, the other `.mean`: with 7 features instead of 5 the loss should grow, with 7 rows instead "
        "of 5 it should not.",
    ),
    verified="importances that differ between instances and features, a batch of one row, float32 and float64.",
    next="add the instances' losses up before you call `backward`: then no instance's gradient depends on how many others there are.",
)


@toy_loss.mistake(
    "features-averaged",
    "You averaged over features. The specification adds them up: a model with more features has more to lose.",
)
def _(x, out, importance):
    return (importance * (x - out) ** 2).mean(dim=(0, 2))


@toy_loss.mistake(
    "batch-summed",
    "You added up over the batch. The loss then grows with the batch size.",
)
def _(x, out, importance):
    return (importance * (x - out) ** 2).sum(dim=(0, 2))


@toy_loss.mistake(
    "importance-squared",
    "The importance was squared together with the error. It weighs the squared error, and stays outside the square.",
)
def _(x, out, importance):
    return ((importance * (x - out)) ** 2).sum(-1).mean(0)


@toy_loss.mistake(
    "importance-ignored",
    "All features weigh the same in your loss. Multiply each squared error by its feature's importance.",
)
def _(x, out, importance):
    return ((x - out) ** 2).sum(-1).mean(0)


@toy_loss.mistake(
    "absolute-error",
    "You took absolute errors. The specification squares them.",
)
def _(x, out, importance):
    return (importance * (x - out).abs()).sum(-1).mean(0)


@toy_loss.mistake(
    "one-loss-for-all",
    "You returned a single number for all instances. Each is a model of its own, and its loss is needed to choose the best "
    "of several.",
)
def _(x, out, importance):
    return (importance * (x - out) ** 2).sum(-1).mean()


@toy_loss.mistake(
    "importance-normalised",
    "You divided by the sum of the importances. The specification adds the weighted errors up.",
)
def _(x, out, importance):
    return (importance * (x - out) ** 2).sum(-1).mean(0) / importance.sum(-1)


@toy_loss.variant
def _(x, out, importance):
    """One einsum."""
    return torch.einsum("bif,bif,if->i", x - out, x - out, importance) / len(x)


@toy_loss.variant
def _(x, out, importance):
    """The batch first."""
    return ((x - out).square().mean(0) * importance).sum(1)


@toy_loss.variant
def _(x, out, importance):
    """torch's own squared error, a loop over instances."""
    return torch.stack([(F.mse_loss(out[:, i], x[:, i], reduction="none") @ importance[i]).mean() for i in range(x.shape[1])])


# --- linear_loss ---------------------------------------------------------------------------------------------


def _linear_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, n: int, d_hidden: int, dtype: torch.dtype) -> Case:
        return Case(label, uniform(rng, n, low=0.05, high=0.95, dtype=dtype), uniform(rng, n, low=0.2, high=4.0, dtype=dtype), d_hidden)

    # Importance, variance and their product each have another order here.
    density = torch.tensor([0.1, 0.6, 0.3, 0.9], dtype=torch.float64)
    importance = torch.tensor([3.0, 1.0, 2.5, 0.4], dtype=torch.float64) * (1 + 0.05 * uniform(rng, 4))
    yield Case("4 features, 2 hidden", density, importance, 2)
    yield case("11 features, 4 hidden", 11, 4, torch.float64)
    yield case("9 features, 1 hidden, float32", 9, 1, torch.float32)
    yield case("7 features, no hidden dimension", 7, 0, torch.float64)
    yield case("3 features, 5 hidden", 3, 5, torch.float64)
    yield Case("features that are never or always there", torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64), torch.tensor([9.0, 1.0, 2.0], dtype=torch.float64), 1).of("extreme")
    yield Case("equal features", torch.full((4,), 0.5, dtype=torch.float64), torch.ones(4, dtype=torch.float64), 3).of("extreme")
    yield case("4 features, 4 hidden", 4, 4, torch.float64).of("extreme")
    yield Case("nothing is important", torch.full((3,), 0.5, dtype=torch.float64), torch.zeros(3, dtype=torch.float64), 1).of("extreme")


linear_loss = Exercise(
    "linear_loss",
    ends={"d_hidden": lambda a: (0, len(a["density"]), len(a["density"]) + 1)},
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS, **NO_SCALE, **NO_MATRIX, "negative": "probabilities and importances are never negative"},
    difficulty=3,
    importance=4,
    minutes=18,
    learn="What the rival does: principal components give each dimension to one feature, and drop the rest.",
    cases=_linear_cases,
    hints=(
        "A linear model with d_hidden dimensions keeps d_hidden features whole and drops the others; for those it can only guess a "
        "constant, with the bias. What does the best constant lose, on average?",
        "You need one number per feature before you choose. Which features would you keep: the most important, the most variable, or "
        "the ones with the largest product?",
        "For one feature: E[x] = density / 2 and E[x^2] = density / 3. From the two follows what a good constant still loses. Weigh "
        "it, and ask which entries of the list a model with d_hidden dimensions does not have to pay.",
    ),
    verified="rare and frequent, important and unimportant features in every combination; no hidden dimension, and more than needed.",
    next="the sum does not fall below this for a linear model, however sparse the features are. What would a ReLU change?",
)


def _variance(density: Tensor) -> Tensor:
    return density / 3 - density**2 / 4


def _dropped(worth: Tensor, d_hidden: int) -> float:
    return worth.sort(descending=True).values[d_hidden:].sum().item()


@linear_loss.mistake(
    "bias-not-used",
    "You counted E[x^2] for a dropped feature. The bias can guess its mean, so that only the variance around it is lost.",
)
def _(density, importance, d_hidden):
    return _dropped(importance * density / 3, d_hidden)


@linear_loss.mistake(
    "most-important-kept",
    "You kept the most important features. A feature that hardly ever varies costs little to drop, however important it is.",
)
def _(density, importance, d_hidden):
    order = importance.argsort(descending=True)
    return (importance * _variance(density))[order[d_hidden:]].sum().item()


@linear_loss.mistake(
    "most-variable-kept",
    "You kept the features with the largest variance, as principal components of unweighted data would. The loss is weighted by "
    "importance.",
)
def _(density, importance, d_hidden):
    order = _variance(density).argsort(descending=True)
    return (importance * _variance(density))[order[d_hidden:]].sum().item()


@linear_loss.mistake(
    "kept-instead-of-dropped",
    "You added up what is kept. The loss is what is dropped.",
)
def _(density, importance, d_hidden):
    return (importance * _variance(density)).sort(descending=True).values[:d_hidden].sum().item()


@linear_loss.mistake(
    "first-features-kept",
    "You kept the first d_hidden features as they stand. Nothing says that they come sorted.",
)
def _(density, importance, d_hidden):
    return (importance * _variance(density))[d_hidden:].sum().item()


@linear_loss.mistake(
    "importance-ignored",
    "All features weigh the same in your sum. The loss weighs each squared error by its importance.",
)
def _(density, importance, d_hidden):
    return _dropped(_variance(density), d_hidden)


@linear_loss.mistake(
    "always-there",
    "You used the variance of a size that is always there, 1/12. A feature that is mostly absent has another one: its mean is "
    "density / 2.",
)
def _(density, importance, d_hidden):
    return _dropped(importance / 12, d_hidden)


@linear_loss.mistake(
    "there-or-not-only",
    "You used the variance of a coin, density (1 - density). When a feature is there it still has a size between 0 and 1.",
)
def _(density, importance, d_hidden):
    return _dropped(importance * density * (1 - density), d_hidden)


@linear_loss.mistake(
    "averaged-over-features",
    "You averaged over features. `toy_loss` adds them up.",
)
def _(density, importance, d_hidden):
    return _dropped(importance * _variance(density), d_hidden) / len(density)


@linear_loss.variant
def _(density, importance, d_hidden):
    """All of it, less the largest."""
    worth = importance * _variance(density)
    return float(worth.sum() - worth.topk(min(d_hidden, len(worth))).values.sum())


@linear_loss.variant
def _(density, importance, d_hidden):
    """NumPy, from the smallest."""
    worth = np.sort((importance * (density * (4 - 3 * density) / 12)).double().numpy())
    return float(worth[: max(0, len(worth) - d_hidden)].sum())


@linear_loss.variant
def _(density, importance, d_hidden):
    """Variance within and between being there and not."""
    worth = importance * (density / 12 + density * (1 - density) / 4)
    return sum(sorted(worth.tolist(), reverse=True)[d_hidden:], 0.0)


# --- two_feature_losses --------------------------------------------------------------------------------------


def _two_cases(rng: torch.Generator) -> Iterator[Case]:
    yield Case("5 points", uniform(rng, 5, low=0.1, high=0.95), uniform(rng, 5, low=0.2, high=5.0))
    yield Case("a grid of 3 by 4, float32", uniform(rng, 3, 4, low=0.1, dtype=torch.float32), uniform(rng, 3, 4, low=0.2, high=5.0, dtype=torch.float32))
    yield Case("a single point", torch.tensor(0.5, dtype=torch.float64), torch.tensor(1.5, dtype=torch.float64))
    yield Case("always there, or not important", torch.tensor([1.0, 0.3], dtype=torch.float64), torch.tensor([2.0, 0.0], dtype=torch.float64))
    yield Case("never there, and always", torch.tensor([0.0, 1.0, 0.5], dtype=torch.float64), torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)).of("extreme")
    yield Case("a grid of 2 by 3 by 2", uniform(rng, 2, 3, 2), uniform(rng, 2, 3, 2, high=4.0)).of("axis")


two_feature_losses = Exercise(
    "two_feature_losses",
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS, **NO_SCALE, "negative": "probabilities and importances are never negative"},
    difficulty=4,
    importance=4,
    minutes=25,
    learn="When two features should share one dimension: a trade between losing one of them always and both of them sometimes.",
    cases=_two_cases,
    hints=(
        "Take the models one at a time. The first two lose only the feature that they ignore, and guess its mean: what is left is a "
        "variance. For the pair, list four situations: none is there, only the first, only the second, both. In which does it err?",
        "For the pair, put x = (0.7, 0.2) through by hand: what comes out, and what is the error on each feature? Then x = (0.2, 0.7)."
        " The error depends on the smaller of the two sizes.",
        "Probabilities first: one is there with density, both with density times density. Sizes next: for two uniform sizes the mean "
        "of min^2 is 1/6. Then the weights: which feature is lost in each model, and what is its importance?",
    ),
    verified="vectors, grids and single points, both dtypes, features that are always there, an importance of 0.",
    next="set the first and the third equal: at which density does the pair begin to win?",
)


def _three(density: Tensor, importance: Tensor, ignored: Tensor | None = None, collision: Tensor | None = None) -> Tensor:
    ignored = density / 3 - density**2 / 4 if ignored is None else ignored
    collision = density**2 / 6 if collision is None else collision
    return torch.stack([importance * ignored, ignored, (1 + importance) * collision], -1)


@two_feature_losses.mistake(
    "bias-forgotten",
    "You counted E[x^2] for the ignored feature. The models' bias guesses its mean, so that only the variance is lost.",
)
def _(density, importance):
    return _three(density, importance, ignored=density / 3)


@two_feature_losses.mistake(
    "collision-as-often-as-a-feature",
    "You let the pair err whenever a feature is there. It errs only when both are: with independent features that is the product "
    "of two probabilities.",
)
def _(density, importance):
    return _three(density, importance, collision=density / 6)


@two_feature_losses.mistake(
    "one-error-per-collision",
    "When both features are there, the pair is wrong on both: the larger one comes out too small, and the smaller one comes out as "
    "0. You counted one error.",
)
def _(density, importance):
    losses = _three(density, importance)
    return torch.stack([losses[..., 0], losses[..., 1], density**2 / 6], -1)


@two_feature_losses.mistake(
    "collision-loses-all",
    "You let a collision lose both features whole. The larger one survives, reduced by the smaller: the error on each is the smaller of "
    "the two sizes.",
)
def _(density, importance):
    return _three(density, importance, collision=density**2 / 3)


@two_feature_losses.mistake(
    "no-relu-in-the-pair",
    "You worked the pair out without its ReLU. When only the first feature is there, the second one's output is negative, and the ReLU "
    "makes it 0.",
)
def _(density, importance):
    # Without the ReLU each output misses by the other feature: E[x^2] on both.
    return _three(density, importance, collision=density / 3)


@two_feature_losses.mistake(
    "importance-on-the-kept-feature",
    "The importances of the first two models are exchanged. 'First only' loses the *second* feature, which has the importance that "
    "was passed in.",
)
def _(density, importance):
    return _three(density, importance)[..., [1, 0, 2]]


@two_feature_losses.mistake(
    "models-first",
    "The three losses are the first dimension of your result. The specification has them last.",
)
def _(density, importance):
    return _three(density, importance).movedim(-1, 0)


@two_feature_losses.mistake(
    "mean-squared-minimum-for-minimum-squared",
    "You squared the mean of the smaller size, (1/3)^2. The error is squared before it is averaged.",
)
def _(density, importance):
    return _three(density, importance, collision=density**2 / 9)


@two_feature_losses.variant
def _(density, importance):
    """Factored."""
    spread = density * (4 - 3 * density) / 12
    return torch.stack((importance * spread, spread, density.square() * (importance + 1) / 6), dim=density.ndim)


@two_feature_losses.variant
def _(density, importance):
    """Written into a new tensor."""
    out = density.new_empty(*density.shape, 3)
    variance = density / 12 + density * (1 - density) / 4
    out[..., 0], out[..., 1] = importance * variance, variance
    out[..., 2] = (density * density) * (1 / 6 + importance / 6)
    return out


@two_feature_losses.variant
def _(density, importance):
    """Stacked first and moved: a view."""
    return _three(density, importance).movedim(-1, 0).contiguous().movedim(0, -1)


# --- feature_dimensionality ------------------------------------------------------------------------------------


def _dimensionality_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, instances: int, hidden: int, features: int, dtype: torch.dtype) -> Case:
        W = normal(rng, instances, hidden, features, dtype=dtype)
        return Case(label, W * uniform(rng, instances, 1, features, low=0.3, high=2.0, dtype=dtype))

    yield case("3 instances, 2 hidden, 5 features", 3, 2, 5, torch.float64)
    yield case("more hidden dimensions than features", 2, 6, 4, torch.float64)
    yield case("as many instances as features and dimensions, 4", 4, 4, 4, torch.float64)
    silent = normal(rng, 2, 3, 7, dtype=torch.float32)
    silent[0, :, 2] = 0.0
    silent[1, :, [0, 6]] = 0.0
    yield Case("features of length 0, float32", silent)
    W = normal(rng, 1, 2, 4)
    W[..., 1] *= 1e-12
    W[..., 2] *= 1e12
    yield Case("a very short column beside a very long one", W).of("extreme")
    yield Case("short columns, float32", 1e-4 * normal(rng, 2, 3, 4, dtype=torch.float32)).of("extreme")
    yield Case("a length just above 0", torch.tensor([[[1e-100, 1.0, 0.0]]], dtype=torch.float64)).of("boundary")


feature_dimensionality = Exercise(
    "feature_dimensionality",
    without={**NOT_TRAINED, **ALL_COUNTS},
    difficulty=3,
    importance=5,
    minutes=18,
    learn="How to say in one number how crowded a feature is, and to recognise pairs, triangles and pentagons by it.",
    cases=_dimensionality_cases,
    hints=(
        "Stand on feature i's direction and read along it: its own column gives |W_i|, every other column gives its projection. The "
        "answer is the share of your own squared reading in the sum of all squared readings, if you take |W_i|^2 for your own.",
        "Print the shape of `torch.einsum('ihf,ihg->ifg', W, W)`. Its entry [i, f, g] is W_f . W_g; what must row f be divided by, so "
        "that it holds projections onto the *unit* direction of f?",
        "Take a pair by hand, W = [[1, -1]]: what does a reader along the first column pick up from each of the two, squared, and what"
        " is its own share? Then scale both columns by 3: the answer must stay. A column of length 0 has no direction; `torch.where` "
        "keeps it from dividing.",
    ),
    verified="columns of different lengths, more and fewer dimensions than features, columns of length 0, both dtypes.",
    next="what is the dimensionality of the five corners of a regular pentagon in the plane?",
)


def _gram(W: Tensor) -> tuple[Tensor, Tensor]:
    """The Gram matrix of the columns, and their lengths."""
    return W.transpose(1, 2) @ W, W.norm(dim=1)


def _share(own: Tensor, every: Tensor) -> Tensor:
    """own / every, and 0 where there is nothing."""
    return torch.nan_to_num(own / every, nan=0.0, posinf=0.0)


def _unit(W: Tensor) -> Tensor:
    return torch.nan_to_num(W / W.norm(dim=1, keepdim=True), nan=0.0)


@feature_dimensionality.mistake(
    "direction-not-normalised",
    "You projected onto W_i itself, not onto its unit direction. Long features then seem crowded, and the number changes when all "
    "weights are doubled.",
)
def _(W):
    gram, length = _gram(W)
    return _share(length**2, gram.square().sum(-1))


@feature_dimensionality.mistake(
    "both-normalised",
    "You normalised all columns. The others keep their lengths: a short neighbour disturbs less than a long one.",
)
def _(W):
    unit = _unit(W)
    return _share(unit.square().sum(1), (unit.transpose(1, 2) @ unit).square().sum(-1))


@feature_dimensionality.mistake(
    "own-projection-left-out",
    "You left the feature itself out of the sum. A feature that is alone would then divide by 0; it should have 1.",
)
def _(W):
    gram, length = _gram(W)
    read = (_unit(W).transpose(1, 2) @ W).square()
    return _share(length**2, read.sum(-1) - length**2)


@feature_dimensionality.mistake(
    "projections-not-squared",
    "You added the absolute projections. They are squared before they are added up.",
)
def _(W):
    read = (_unit(W).transpose(1, 2) @ W).abs()
    return _share(W.norm(dim=1) ** 2, read.sum(-1))


@feature_dimensionality.mistake(
    "length-not-squared",
    "The numerator is the length. It must be the squared length, or the number depends on the units.",
)
def _(W):
    read = (_unit(W).transpose(1, 2) @ W).square()
    return _share(W.norm(dim=1), read.sum(-1))


@feature_dimensionality.mistake(
    "silent-feature-is-nan",
    "A feature of length 0 gives 0 / 0, not a number. The specification wants 0 there.",
)
def _(W):
    gram, length = _gram(W)
    return length**4 / gram.square().sum(-1)


@feature_dimensionality.mistake(
    "rows-for-columns",
    "You computed one number per hidden dimension. Features are the columns of W, the last axis.",
)
def _(W):
    rows = W.transpose(1, 2)
    read = (_unit(rows).transpose(1, 2) @ rows).square()
    return _share(rows.norm(dim=1) ** 2, read.sum(-1))


@feature_dimensionality.mistake(
    "sum-before-square",
    "You added the projections up and squared the sum. Opposite projections then cancel, as if two neighbours could make each other "
    "silent.",
)
def _(W):
    read = _unit(W).transpose(1, 2) @ W
    return _share(W.norm(dim=1) ** 2, read.sum(-1) ** 2)


@feature_dimensionality.variant
def _(W):
    """The definition, with unit directions by torch's normalize."""
    read = torch.einsum("ihf,ihg->ifg", F.normalize(W, dim=1), W).square().sum(-1)
    return W.square().sum(1) / torch.where(read == 0, 1, read)


@feature_dimensionality.variant
def _(W):
    """Loops."""
    out = torch.zeros(W.shape[0], W.shape[2], dtype=W.dtype)
    for i, model in enumerate(W):
        for f in range(model.shape[1]):
            own = model[:, f]
            if own.any():
                out[i, f] = own.norm() ** 2 / sum((own @ model[:, g] / own.norm()) ** 2 for g in range(model.shape[1]))
    return out


@feature_dimensionality.variant
def _(W):
    """Through cosines: 1 over the sum of squared cosines, each weighted by the relative squared length."""
    unit, size = F.normalize(W, dim=1), W.square().sum(1)
    weighted = ((unit.mT @ unit).square() * size[:, None]).sum(-1)
    return torch.where(size > 0, size / weighted.clamp(min=1e-30), torch.zeros_like(size))
