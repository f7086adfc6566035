"""Learning the ranker network from groups."""

from __future__ import annotations

import numpy as np
import torch

from headrace.model.candidates import CANDIDATE_FEATURES
from headrace.trainer.ranker_learner import Groups, RankerLearner
from headrace.trainer.settings import TrainerSettings

_SIGN = CANDIDATE_FEATURES.index("price")


def _groups(count: int, seed: int, rows: int = 12) -> Groups:
    """The candidate with the greatest `price` is bought."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((count, rows, len(CANDIDATE_FEATURES))).astype(np.float32)
    labels = np.zeros((count, rows), np.uint8)
    labels[np.arange(count), features[:, :, _SIGN].argmax(axis=1)] = 4
    total = count * rows
    sizes = np.full(count, rows)
    return Groups(
        features.reshape(total, -1), labels.ravel(), np.ones(total, np.float32), sizes, np.zeros(len(sizes), np.int64)
    )


def _hits(learner: RankerLearner, groups: Groups) -> float:
    with torch.no_grad():
        scores = learner.averaged(torch.from_numpy(groups.features_RF))[:, 0].numpy()
    best = scores.reshape(len(groups), -1).argmax(axis=1)
    return float((groups.labels_R.reshape(len(groups), -1)[np.arange(len(groups)), best] > 0).mean())


def test_the_rule_is_learned(settings: TrainerSettings) -> None:
    learner, unseen = RankerLearner(settings), _groups(100, 99)
    before = _hits(learner, unseen)
    for seed in range(12):
        learner.learn(_groups(256, seed))
    assert before < 0.3 < 0.7 < _hits(learner, unseen)
    assert learner.rows == 12 * 256 * 12


def test_a_restored_learner_goes_on_as_the_first_would_have(settings: TrainerSettings) -> None:
    learner, copy = RankerLearner(settings), RankerLearner(settings)
    learner.learn(_groups(100, 1))
    copy.restore({name: value.copy() for name, value in learner.arrays().items()})
    for each in (learner, copy):
        each.learn(_groups(100, 2))
    mine, theirs = learner.arrays(), copy.arrays()
    assert mine.keys() == theirs.keys()
    assert all(np.array_equal(mine[name], theirs[name]) for name in mine)


def test_replay_is_bounded_and_keeps_what_was_followed(settings: TrainerSettings) -> None:
    learner = RankerLearner(settings.model_copy(update={"ranker_replay_groups": 16}))
    learner.learn(_groups(100, 1, rows=200))
    arrays = learner.arrays()
    assert arrays["kept.labels_GC"].shape == (16, 128)
    assert (arrays["kept.labels_GC"] > 0).sum(axis=1).tolist() == [1] * 16


def test_what_is_published_moves_more_steadily_than_what_learns(settings: TrainerSettings) -> None:
    learner = RankerLearner(settings)
    learner.learn(_groups(640, 1))
    moves = {"network": 0.0, "averaged": 0.0}
    for seed in range(2, 6):
        before = {name: getattr(learner, name).heads.weight.detach().clone() for name in moves}
        learner.learn(_groups(32, seed))
        for name in moves:
            moves[name] += float((getattr(learner, name).heads.weight.detach() - before[name]).norm())
    assert 0 < moves["averaged"] < moves["network"]


def test_groups_in_which_nothing_followed_teach_nothing(settings: TrainerSettings) -> None:
    learner, groups = RankerLearner(settings), _groups(3, 1)
    groups.labels_R[:] = 0
    learner.learn(groups)
    assert (learner.rows, learner.loss) == (0, 0.0)


def test_chosen_groups_keep_their_rows() -> None:
    groups = Groups(
        np.arange(5, dtype=np.float32)[:, None],
        np.arange(5, dtype=np.uint8),
        np.ones(5, np.float32),
        np.array([2, 3]),
        np.array([7, 8]),
    )
    chosen = groups.at(np.array([1, 0]))
    assert (chosen.labels_R.tolist(), chosen.sizes_G.tolist()) == ([2, 3, 4, 0, 1], [3, 2])
    assert chosen.owners_G.tolist() == [8, 7]
