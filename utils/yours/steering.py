"""Your own contrast as a steering vector: what each dose achieves, what it costs, and what a random push does.

    table = labelled(["What a day!", ...], ["What a day.", ...])
    found = dose_response(model, table)
    print(found); found.figure()

From the shell: python -m utils steer my.csv
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm.auto import tqdm
from transformer_lens.model_bridge import TransformerBridge

from utils.activations import collect_activations
from utils.data.prompts import PROMPTS
from utils.hooks import resid_post
from utils.intervals import Estimate
from utils.models import load_model
from utils.plots import GREY, PALETTE, reference_line
from utils.probes import auroc
from utils.sae.model import AnySAE, check_fits
from utils.steering.generating import generate
from utils.steering.reach import SteeringError
from utils.steering.scoring import Score, difference, mean_score, perplexity
from utils.steering.steering import change_usual, steer, usual_norm
from utils.yours.tables import Labelled, TableError, read_table

DEPTH = 0.45
"""Where the push takes place without an SAE, as a share of the depth."""
DOSES = (0.1, 0.2, 0.3, 0.45)
"""In multiples of the usual length of an activation."""
_READS = 0.7
"""An AUROC below which the reader's numbers are not worth a verdict."""


@dataclass(frozen=True)
class Dose:
    """One way of pushing at one dose.

    Attributes:
        way: "your vector", "random" or "latent 5579".
        dose: in usual lengths.
        effect: the change against plain text, prompt by prompt, with its 95% interval.
        price: perplexity in multiples of the plain texts'.
        wrong_way: the share of the prompts whose text moved the other way.
        scores: the effect on every prompt's text, plain text not subtracted.
    """

    way: str
    dose: float
    effect: Estimate
    price: float
    wrong_way: float
    scores: Score

    def __str__(self) -> str:
        return (f"{self.way:<14} dose {self.dose:.2f}   effect {self.effect.value:+.2f} [{self.effect.low:+.2f}, {self.effect.high:+.2f}]"
                f"   price {self.price:.2f}   wrong way {self.wrong_way:.0%}")


@dataclass(frozen=True)
class DoseResponse:
    """All doses of all ways, and what follows from them.

    Attributes:
        doses: one entry per way and dose.
        verdict: in words.
        effect_name: the axis of the effect, which is the change against plain text.
    """

    doses: list[Dose]
    verdict: str
    effect_name: str

    def __str__(self) -> str:
        return "\n".join([*map(str, self.doses), "", self.verdict])

    def figure(self) -> go.Figure:
        """Effect against price, one line per way, the dose at every dot."""
        fig = go.Figure()
        furthest: dict[str, float] = {}
        for i, way in enumerate(dict.fromkeys(dose.way for dose in self.doses)):
            mine = [dose for dose in self.doses if dose.way == way]
            color = GREY if way == "random" else PALETTE[i]
            bars = {"type": "data", "symmetric": False, "thickness": 1, "array": [d.effect.high - d.effect.value for d in mine],
                    "arrayminus": [d.effect.value - d.effect.low for d in mine]}
            fig.add_scatter(x=[d.price for d in mine], y=[d.effect.value for d in mine], error_y=bars, name=way, mode="lines+markers+text",
                            text=[f"{d.dose:g}" for d in mine], textposition="top right", marker={"size": 9, "color": color}, line={"color": color, "dash": "dot"})
            furthest[way] = max(d.effect.value for d in mine)
        reference_line(fig, 0, "no effect")
        title = "Largest effect, whatever its price: " + ", ".join([f"{way} {value:+.2f}" for way, value in furthest.items()])
        fig.update_layout(title=title, width=860,
                          xaxis_title="price: perplexity of the text, in multiples of plain text's", yaxis_title=self.effect_name)
        return fig


def dose_response(
    model: TransformerBridge,
    table: Labelled,
    *,
    prompts: Sequence[str] = PROMPTS[:24],
    effect: Callable[[Sequence[str]], Score] | None = None,
    sae: AnySAE | None = None,
    doses: Sequence[float] = DOSES,
    budget: float = 1.6,
    new_tokens: int = 20,
    seed: int = 0,
    progress: bool = True,
) -> DoseResponse:
    """Steer with the difference of means between two kinds of texts, at several doses, beside random pushes of the same lengths.

    Args:
        table: label 1 is where the push goes, label 0 what it leaves; at least 10 texts of each.
        prompts: at least 8 openings. The dose of the verdict is chosen on every other one, and reported on the rest.
        effect: scores what was written, such as `sentiment` or `lambda texts: keyword_rate(texts, "sea")`. None: the plain
            model reads the text and says where it stands between your texts of label 0 (at 0) and of label 1 (at 1). That
            reader is made from one half of your texts, the vector from the other.
        sae: with one, the vector is made where the SAE belongs, and the decoder row of the latent with the largest contrast
            between your texts is tried beside it.
        doses: in multiples of the usual length of an activation.
        budget: how many times the plain texts' perplexity the verdict allows.

    Raises: TableError for too few texts; SteeringError for too few prompts or doses that are not positive; SAEError.
    """
    table.require()
    prompts = list(prompts)
    if len(prompts) < 8 or not doses or min(doses) <= 0:
        raise SteeringError(f"at least 8 prompts and one positive dose are needed; got {len(prompts)} and {list(doses)}.")
    name = resid_post(round(DEPTH * (model.cfg.n_layers - 1))) if sae is None else check_fits(model, sae)
    acts = collect_activations(model, table.texts, name, position="mean", progress=False)
    halves = _halves(table)
    step = _contrast(acts, table.labels, halves == 0)
    reads = None
    if effect is None:
        reader = _contrast(acts, table.labels, halves == 1)
        other = halves == 0
        reads = auroc(acts[other] @ reader, table.labels[other])
        effect = _reading(model, name, acts, table.labels, halves == 1, reader)
    norm = usual_norm(model, prompts, name)
    ways = {"your vector": _along(model, name, step)}
    if sae is not None:
        latent = _strongest_latent(model, table, sae, name)
        ways[f"latent {latent}"] = _along(model, name, sae.W_dec[latent].detach().float().cpu())
    ways["random"] = _at_random(model, name, len(prompts), seed)

    def written(push: AbstractContextManager | None = None) -> list[str]:
        if push is None:
            return generate(model, prompts, max_new_tokens=new_tokens, seed=seed, progress=False)
        with push:
            return generate(model, prompts, max_new_tokens=new_tokens, seed=seed, progress=False)

    texts = written()
    plain, plain_cost = effect(texts), perplexity(model, prompts, texts).value
    found = []
    for way, dose in tqdm([(way, dose) for way in ways for dose in doses], desc="doses", leave=False, disable=not progress):
        texts = written(ways[way](dose * norm))
        scores = effect(texts)
        wrong = float((scores.values < plain.values).double().mean())
        found.append(Dose(way, dose, difference(scores, plain), perplexity(model, prompts, texts).value / plain_cost, wrong, scores))
    moved = "change of reading (1: label 0 to 1)" if reads is not None else "change of score (the scorer's units)"
    return DoseResponse(found, _verdict(found, budget, reads), moved)


def steer_file(path: Path, model_name: str | None = None, picture: Path | None = None) -> int:
    """`python -m utils steer my.csv`: print doses and verdict, and write the figure as HTML if asked. Returns the exit status."""
    try:
        table = read_table(path)
        table.require()
        model = load_model(model_name) if model_name else load_model()
        found = dose_response(model, table)
    except (TableError, SteeringError) as error:
        print(error, file=sys.stderr)
        return 1
    print(found)
    if picture is not None:
        found.figure().write_html(picture, include_plotlyjs=True)
    return 0


def _halves(table: Labelled) -> Tensor:
    """0 or 1 per row: whole groups, both halves with both labels where the groups allow it."""
    half = torch.zeros(len(table), dtype=torch.long)
    seen: dict[int, int] = {}
    count = [0, 0]
    for row, (group, label) in enumerate(zip(table.groups.tolist(), table.labels.tolist())):
        if group not in seen:
            seen[group] = count[label] % 2
            count[label] += 1
        half[row] = seen[group]
    return half


def _contrast(acts: Float[Tensor, "n d_model"], labels: Tensor, rows: Bool[Tensor, " n"]) -> Float[Tensor, " d_model"]:
    if not all(((labels == label) & rows).any() for label in (0, 1)):
        raise TableError("the texts cannot be halved by group so that both halves hold both labels: give them more groups.")
    return acts[rows & (labels == 1)].mean(0) - acts[rows & (labels == 0)].mean(0)


def _reading(model: TransformerBridge, name: str, acts: Tensor, labels: Tensor, rows: Tensor, reader: Tensor) -> Callable[[Sequence[str]], Score]:
    """A scorer: where the plain model sees a text between the two kinds."""
    zero, one = (float((acts[rows & (labels == label)] @ reader).mean()) for label in (0, 1))

    def score(texts: Sequence[str]) -> Score:
        values = torch.full((len(texts),), torch.nan, dtype=torch.double)
        there = [i for i, text in enumerate(texts) if text.strip()]
        if there:
            read = collect_activations(model, [texts[i] for i in there], name, position="mean", cache=False, progress=False)
            values[there] = ((read @ reader - zero) / (one - zero)).double()
        return mean_score(values)

    return score


def _along(model: TransformerBridge, name: str, direction: Float[Tensor, " d_model"]) -> Callable[[float], AbstractContextManager]:
    return lambda length: steer(model, name, direction / direction.norm(), length)


def _at_random(model: TransformerBridge, name: str, n: int, seed: int) -> Callable[[float], AbstractContextManager]:
    """Another direction in every row of a batch, so that the control is not one lucky draw."""
    noise = F.normalize(torch.randn(n, model.cfg.d_model, generator=torch.Generator().manual_seed(seed)), dim=1)
    return lambda length: change_usual(model, name, lambda acts, usual: acts + usual[..., None] * (length * noise[: len(acts), None]).to(acts))


def _strongest_latent(model: TransformerBridge, table: Labelled, sae: AnySAE, name: str) -> int:
    """The latent whose mean value in a text differs most between the labels, upwards."""
    tokens = collect_activations(model, table.texts, name, position="all", progress=False)
    sums = torch.zeros(len(table), sae.W_dec.shape[0])
    for acts, text in zip(tokens.acts.split(1024), tokens.text.split(1024)):
        sums.index_add_(0, text, sae.encode(acts.to(sae.W_dec)).detach().float().cpu())
    means = sums / torch.bincount(tokens.text, minlength=len(table)).clamp(min=1)[:, None]
    return int((means[table.labels == 1].mean(0) - means[table.labels == 0].mean(0)).argmax())


def _verdict(found: Sequence[Dose], budget: float, reads: float | None) -> str:
    if reads is not None and reads < _READS:
        return (f"No verdict: the reader made from one half of your texts tells the other half apart with an AUROC of {reads:.2f} only. "
                "Give more texts, texts that differ in one thing, or a scorer of your own (effect=).")
    said = []
    for way in dict.fromkeys(dose.way for dose in found if dose.way != "random"):
        affordable = [dose for dose in found if dose.way == way and dose.price <= budget]
        if not affordable:
            cheapest = min((dose for dose in found if dose.way == way), key=lambda dose: dose.price)
            said.append(f"{way}: no dose is within {budget:g} times the plain perplexity; the cheapest, {cheapest.dose:g}, costs {cheapest.price:.2f} times.")
            continue
        chosen = max(affordable, key=lambda dose: float(dose.scores.values[::2].nanmean()))
        control = next(dose for dose in found if dose.way == "random" and dose.dose == chosen.dose)
        gap = mean_score(chosen.scores.values[1::2] - control.scores.values[1::2]).estimate
        further = "further than" if gap.low > 0 else "the other way from" if gap.high < 0 else "no further, as far as can be told, than"
        said.append(f"{way}, at a dose of {chosen.dose:g} (the best within the budget on every other prompt): on the rest the texts move {further} "
                    f"under a random push of that length, by {gap.value:+.2f} [{gap.low:+.2f}, {gap.high:+.2f}], at {chosen.price:.2f} times the "
                    f"plain perplexity; {chosen.wrong_way:.0%} of all prompts move the wrong way.")
    return "\n".join([*said, "Before you use it: would a sentence in front of the prompt do the same?"])
