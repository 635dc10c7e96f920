"""Cause and isolation: exchange one attribute of a city inside the network, and ask for it and for the others.

After Huang and others 2024, RAVEL, arXiv:2402.17700. An edit takes a *base* city's activation at the last token of its name, and gives
it something of a *source* city's. `asked` then lets the network answer a question about the base city. An edit of the country has
its cause if the network now prefers the source's country, and isolation if it still prefers the base's continent and language.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import safetensors.torch
import torch
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError
from torch import Tensor
from tqdm.auto import tqdm
from transformer_lens.model_bridge import TransformerBridge

from utils.activation_cache import model_digest
from utils.activations import collect_activations, tokenize
from utils.data.attributes import PREFIX, QUESTIONS, CityFacts
from utils.hooks import intervene
from utils.paths import cache_dir, write_cache


@dataclass(frozen=True)
class Cities:
    """Cities and a network that is asked about them.

    Attributes:
        hook: where activations are read and exchanged.
        acts: at the last token of each name.
    """

    model: TransformerBridge
    facts: CityFacts
    hook: str
    acts: Float[Tensor, "n d_model"]

    @classmethod
    def read(cls, model: TransformerBridge, facts: CityFacts, hook: str) -> Cities:
        """Collect the activations of the names; from the cache the second time."""
        return cls(model, facts, hook, collect_activations(model, [PREFIX.format(name) for name in facts.name], hook))

    def classes(self, attribute: str) -> Int[Tensor, " n"]:
        """The number of each city's value, in alphabetical order."""
        column = self.facts.value[attribute]
        names = sorted(set(column))
        return torch.tensor([names.index(value) for value in column])

    def asked(self, attribute: str, rows: Sequence[int], new: Float[Tensor, "m d_model"] | None = None, *, batch_size: int = 32
              ) -> Float[Tensor, "m n_values"]:
        """The logit of every value's first token, as the answer to the question about these cities.

        Args:
            new: the activations to put in place of those of the names; None leaves them as they are.
        """
        tokens, mask = tokenize(self.model, [QUESTIONS[attribute].format(self.facts.name[i]) for i in rows])
        lengths = tokenize(self.model, [PREFIX.format(self.facts.name[i]) for i in rows])[1].sum(1)
        values = torch.tensor([self._first(value) for value in sorted(set(self.facts.value[attribute]))])
        found = []
        for part in torch.arange(len(rows)).split(batch_size):
            edited = nullcontext() if new is None else intervene(self.model, {self.hook: _put(new[part], lengths[part] - 1)}, may_do_nothing=True)
            with edited:
                logits = self.model(tokens[part].to(self.model.cfg.device))
            found.append(logits[torch.arange(len(part)), mask[part].sum(1) - 1][:, values].cpu())
        return torch.cat(found)

    def known(self) -> list[int]:
        """The cities of which the network prefers the right value in all three questions."""
        rows = range(len(self.facts))
        with torch.no_grad():
            right = [self.asked(attribute, rows).argmax(1) == self.classes(attribute) for attribute in QUESTIONS]
        return torch.stack(right).all(0).nonzero()[:, 0].tolist()

    def pairs(self, rows: Sequence[int], each: int, seed: int) -> tuple[list[int], list[int]]:
        """(base, source): every city of `rows` as the base of up to `each` pairs with others of `rows` that differ in everything."""
        rng = torch.Generator().manual_seed(seed)
        found = [(base, rows[i]) for base in rows
                 for i in [j for j in torch.randperm(len(rows), generator=rng).tolist() if self.facts.differ(base, rows[j])][:each]]
        return [base for base, _ in found], [source for _, source in found]

    def switched(self, attribute: str, base: Sequence[int], source: Sequence[int], new: Float[Tensor, "m d_model"]) -> Bool[Tensor, " m"]:
        """Whether the network now prefers the source's value to the base's."""
        classes, row = self.classes(attribute), torch.arange(len(base))
        with torch.no_grad():
            logits = self.asked(attribute, base, new)
        return logits[row, classes[list(source)]] > logits[row, classes[list(base)]]

    def disentangled(self, target: str, base: Sequence[int], source: Sequence[int], new: Float[Tensor, "m d_model"]
                     ) -> Float[Tensor, "m 2"]:
        """(cause, isolation) of an edit of `target`, per pair: 1 for a target that switched, and the share of the others that did not."""
        gone = {attribute: self.switched(attribute, base, source, new).float() for attribute in QUESTIONS}
        kept = [1 - gone[attribute] for attribute in QUESTIONS if attribute != target]
        return torch.stack([gone[target], torch.stack(kept).mean(0)], 1)

    def _first(self, value: str) -> int:
        return self.model.tokenizer(" " + value, add_special_tokens=False)["input_ids"][0]


def _put(new: Float[Tensor, "m d_model"], places: Int[Tensor, " m"]):
    def edit(acts: Float[Tensor, "m pos d_model"], hook: object) -> Float[Tensor, "m pos d_model"]:
        here = torch.arange(acts.shape[1], device=acts.device) == places[:, None].to(acts.device)
        return torch.where(here[..., None], new[:, None].to(acts), acts)

    return edit


def spread_of_means(features: Float[Tensor, "n d"], classes: Int[Tensor, " n"]) -> Float[Tensor, " d"]:
    """The variance of each feature's class means, every row's class counted once per row: what `mean_subspace` looks for, feature by feature."""
    means = torch.stack([features[classes == c].mean(0) for c in classes.unique()])
    weight = torch.unique(classes, return_counts=True)[1] / len(classes)
    return (weight[:, None] * (means - features.mean(0)).square()).sum(0)


def mean_subspace(acts: Float[Tensor, "n d"], classes: Int[Tensor, " n"], rank: int) -> Float[Tensor, "d r"]:
    """An orthonormal basis of the space in which the class means differ, its widest `rank` directions: differences of means, for many classes."""
    means = torch.stack([acts[classes == c].mean(0) for c in classes.unique()])
    return torch.linalg.svd((means - means.mean(0)).T, full_matrices=False).U[:, : min(rank, len(means) - 1)]


def exchange_in(basis: Float[Tensor, "d r"], x: Float[Tensor, "m d"], source: Float[Tensor, "m d"]) -> Float[Tensor, "m d"]:
    """Give x the source's component inside a subspace with an orthonormal basis."""
    return x + (source - x) @ basis @ basis.T


def trained_subspace(cities: Cities, target: str, rows: Sequence[int], rank: int, *, steps: int = 25, batch_size: int = 12, lr: float = 0.01,
                     seed: int = 0, progress: bool = True) -> Float[Tensor, "d r"]:
    """A subspace trained for cause and isolation at once, by gradients through the network; it begins as `mean_subspace`.

    The loss is the cross-entropy of the answers that are wanted: the source's value for the target, the base's for the others. One to
    two minutes on two quiet cores, then from the cache.

    Source: Geiger and others 2024, arXiv:2303.02536; with several attributes at once, Huang and others 2024, arXiv:2402.17700.
    """
    said = [target, cities.hook, [(cities.facts.name[i], *(cities.facts.value[a][i] for a in QUESTIONS)) for i in rows], rank, steps,
            batch_size, lr, seed, model_digest(cities.model)]
    path = cache_dir() / "subspaces" / f"1-{hashlib.sha256(repr(said).encode()).hexdigest()[:32]}.safetensors"
    try:
        return safetensors.torch.load(path.read_bytes())["basis"]
    except (OSError, KeyError, SafetensorError):
        pass
    base, source = (torch.tensor(column) for column in cities.pairs(rows, 4, seed))
    wanted = {a: cities.classes(a)[source if a == target else base] for a in QUESTIONS}
    free = mean_subspace(cities.acts[rows], cities.classes(target)[rows], rank).clone().requires_grad_()
    optimizer = torch.optim.Adam([free], lr=lr)
    order = torch.cat([torch.randperm(len(base), generator=torch.Generator().manual_seed(seed + i)) for i in range(1 + steps * batch_size // len(base))])
    for step in tqdm(range(steps), desc=f"a subspace for {target}", unit=" steps", disable=not progress):
        batch = order[step * batch_size : (step + 1) * batch_size]
        new = exchange_in(torch.linalg.qr(free).Q, cities.acts[base[batch]], cities.acts[source[batch]])
        losses = [torch.nn.functional.cross_entropy(cities.asked(a, base[batch].tolist(), new), wanted[a][batch]) for a in QUESTIONS]
        optimizer.zero_grad()
        sum(losses).backward()
        optimizer.step()
    basis = torch.linalg.qr(free.detach()).Q.contiguous()
    write_cache(path, safetensors.torch.save({"basis": basis}))
    return basis
