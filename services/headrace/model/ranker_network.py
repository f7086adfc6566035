"""The ranker: which of the candidates a person engages with, and how (DCN-v2, Wang et al. 2021).

R rows (candidates), F features, G groups, C candidates of a group, K heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

# the first head orders the list; the others are probabilities of what a person does
HEADS = ("rank", "click", "cart", "purchase")
# what a list is asked to put first, by EventCode: none, view, cart, remove, purchase
GAINS = (0.0, 1.0, 2.0, 0.0, 4.0)
_CART, _PURCHASE, _REMOVE = 2, 4, 3
_CLIP = 8.0


@dataclass(frozen=True, slots=True)
class RankerShape:
    """Sizes that fix the form of every weight; travels with a release."""

    features: int
    crosses: int = 2
    hidden: int = 64


class RankerNetwork(nn.Module):
    """Cross layers and an MLP over standardised features, with a head a task."""

    mean_F: Tensor
    variance_F: Tensor
    seen: Tensor

    def __init__(self, shape: RankerShape) -> None:
        super().__init__()
        self.shape = shape
        width = shape.features
        self.crosses = nn.ModuleList(nn.Linear(width, width) for _ in range(shape.crosses))
        self.deep = nn.Sequential(
            nn.Linear(width, shape.hidden), nn.GELU(), nn.Linear(shape.hidden, shape.hidden // 2), nn.GELU()
        )
        self.heads = nn.Linear(width + shape.hidden // 2, len(HEADS))
        self.register_buffer("mean_F", torch.zeros(width))
        self.register_buffer("variance_F", torch.ones(width))
        self.register_buffer("seen", torch.zeros(1, dtype=torch.float64))
        # begins near to a linear model, so that a feature that was never seen in training says little
        for line in (*self.crosses, self.deep[0], self.heads):
            nn.init.normal_(line.weight, std=0.01)
            nn.init.zeros_(line.bias)

    def prefer(self, weights: dict[int, float]) -> None:
        """Sets what the order leans on before anything is learned: feature number → weight."""
        with torch.no_grad():
            for feature, weight in weights.items():
                self.heads.weight[0, feature] = weight

    def observe(self, features_RF: Tensor) -> None:
        """Folds rows into the running mean and variance (Chan et al. 1979, capped so that they follow a drift).

        A feature that never varied keeps a variance of 1: its first value must not look enormous.
        """
        rows = len(features_RF)
        variance_F, mean_F = torch.var_mean(features_RF, dim=0, correction=0)
        share = rows / (float(self.seen) + rows)
        shift_F = mean_F - self.mean_F
        moved_F = share * (variance_F - self.variance_F) + share * (1 - share) * shift_F**2
        self.variance_F += torch.where(variance_F > 0, moved_F, 0.0)
        self.mean_F += share * shift_F
        self.seen.copy_(torch.clamp(self.seen + rows, max=1_000_000.0))

    def forward(self, features_RF: Tensor) -> Tensor:
        """R × K logits."""
        inputs_RF = ((features_RF - self.mean_F) * torch.rsqrt(self.variance_F + 1e-4)).clamp(-_CLIP, _CLIP)
        crossed_RF = inputs_RF
        for cross in self.crosses:
            crossed_RF = inputs_RF * cross(crossed_RF) + crossed_RF
        deep_R = self.deep(inputs_RF)
        return cast(Tensor, self.heads(torch.cat([crossed_RF, deep_R], dim=1)))


def ranking_loss(logits_RK: Tensor, labels_R: Tensor, sizes_G: Tensor, weights_R: Tensor) -> Tensor:
    """Listwise softmax over each group, graded by what followed, plus cross-entropy of every task.

    `labels_R` are EventCodes of what followed (0: nothing); rows of a group stand together, `sizes_G` of
    them each. `weights_R` says for how many candidates a row stands: rows without a label are a sample.
    A group in which nothing followed teaches the tasks only.
    """
    gains_R = torch.tensor(GAINS)[labels_R]
    tasks_RT = _task_labels(labels_R)
    losses_RT = functional.binary_cross_entropy_with_logits(logits_RK[:, 1:], tasks_RT, reduction="none")
    pointwise = (losses_RT.mean(dim=1) * weights_R).sum() / weights_R.sum()
    # a row that stands for w candidates counts w times in the sum under the softmax
    return _listwise(logits_RK[:, 0] + weights_R.log(), gains_R, sizes_G) + pointwise


def _task_labels(labels_R: Tensor) -> Tensor:
    click_R = (labels_R > 0) & (labels_R != _REMOVE)
    cart_R = (labels_R == _CART) | (labels_R == _PURCHASE)
    return torch.stack([click_R, cart_R, labels_R == _PURCHASE], dim=1).float()


def _listwise(scores_R: Tensor, gains_R: Tensor, sizes_G: Tensor) -> Tensor:
    group_R = torch.repeat_interleave(torch.arange(len(sizes_G)), sizes_G)
    place_R = torch.arange(len(scores_R)) - (sizes_G.cumsum(0) - sizes_G)[group_R]
    shape = (len(sizes_G), int(sizes_G.max()))
    scores_GC = torch.full(shape, float("-inf")).index_put((group_R, place_R), scores_R)
    gains_GC = torch.zeros(shape).index_put((group_R, place_R), gains_R)
    log_shares_GC = torch.log_softmax(scores_GC, dim=1).masked_fill(scores_GC == float("-inf"), 0.0)
    total_G = gains_GC.sum(dim=1)
    losses_G = -(gains_GC * log_shares_GC).sum(dim=1) / total_G.clamp(min=1.0)
    return losses_G.sum() / (total_G > 0).sum().clamp(min=1)
