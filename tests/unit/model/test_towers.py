"""The towers, their loss and the ranker network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headrace.model.losses import in_batch_softmax, sampled_softmax
from headrace.model.ranker_network import RankerNetwork, RankerShape, ranking_loss
from headrace.model.towers import ItemContent, Towers, TowerShape, event_gaps, gap_buckets

SHAPE = TowerShape(dimension=8, heads=2, blocks=2, max_length=6, text_width=4)


def _towers() -> Towers:
    torch.manual_seed(1)
    return Towers(SHAPE)


def _sequence(length: int) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(2)
    whole = torch.randn(1, 6, 8), torch.ones(1, 6, dtype=torch.long), torch.zeros(1, 6, dtype=torch.long)
    gaps = torch.tensor([[0, 3, 1, 9, 2, 2]])
    return tuple(column[:, :length] for column in (*whole, gaps))


def test_a_state_sees_no_later_event() -> None:
    towers = _towers()
    with torch.no_grad():
        whole, part = towers.user(*_sequence(6)), towers.user(*_sequence(3))
    torch.testing.assert_close(whole[:, :4], part)


def test_a_person_without_history_has_a_vector() -> None:
    towers = _towers()
    with torch.no_grad():
        states = towers.user(*_sequence(0))
        wants = towers.user.wants(states[:, -1], torch.zeros(1, dtype=torch.long))
    assert states.shape == (1, 1, 16)
    assert torch.linalg.vector_norm(wants) > 0


def test_before_training_a_person_wants_what_they_saw() -> None:
    towers = _towers()
    items = torch.eye(8)
    seen = items[[3, 3, 3]][None]
    codes = torch.ones(1, 3, dtype=torch.long)
    with torch.no_grad():
        states = towers.user(seen, codes, codes, codes)
        wants = towers.user.wants(states[:, -1], torch.ones(1, dtype=torch.long))
    assert int((wants @ items.T).argmax()) == 3


def test_an_item_of_which_nothing_is_known_is_not_the_zero_vector() -> None:
    content = ItemContent(
        torch.zeros(1, 4),
        torch.zeros(1, dtype=torch.long),
        torch.zeros(1, 4, dtype=torch.long),
        torch.zeros(1).long(),
        torch.zeros(1, 8, dtype=torch.long),
    )
    vectors = _towers().item(content, torch.zeros(1, 8))
    torch.testing.assert_close(torch.linalg.vector_norm(vectors), torch.tensor(1.0))


def test_the_query_tower_begins_as_the_projection_of_titles() -> None:
    towers = _towers()
    torch.testing.assert_close(towers.query.text.weight, towers.item.text.weight)


@pytest.mark.parametrize(("seconds", "bucket"), [(-5, 1), (0, 1), (1, 2), (3_600, 12), (31_536_000, 25), (10**12, 31)])
def test_gaps_fall_into_buckets_by_powers_of_two(seconds: int, bucket: int) -> None:
    assert gap_buckets(np.array([seconds * 1_000_000])).tolist() == [bucket]


def test_the_first_event_has_no_gap() -> None:
    assert event_gaps(np.array([[5, 5, 1_000_005]])).tolist() == [[0, 1, 2]]


def test_a_negative_that_is_the_target_is_left_out() -> None:
    wants, positives = torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 0.0]])
    losses = sampled_softmax(
        wants,
        positives,
        torch.tensor([[2.0, 0.0], [0.0, 1.0]]),
        positive_ids_P=torch.tensor([7]),
        negative_ids_S=torch.tensor([7, 8]),
        positive_log_q_P=torch.zeros(1),
        negative_log_q_S=torch.zeros(2),
    )
    # against the other negative alone: −log(e² / (e² + e⁰))
    torch.testing.assert_close(losses, torch.log1p(torch.exp(torch.tensor([-2.0]))))


def _softmax_inputs(dtype: torch.dtype) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(6)
    leaves = [torch.randn(rows, 3, generator=generator, dtype=dtype).requires_grad_() for rows in (5, 5, 9)]
    fixed = {
        "positive_ids_P": torch.tensor([4, 1, 4, 9, 2]),
        "negative_ids_S": torch.tensor([1, 4, 3, 4, 0, 2, 5, 1, 4]),
        "positive_log_q_P": torch.randn(5, generator=generator, dtype=dtype),
        "negative_log_q_S": torch.randn(9, generator=generator, dtype=dtype),
    }
    return leaves, fixed


def test_the_losses_are_cross_entropies_of_the_corrected_scores() -> None:
    (wants, positives, negatives), fixed = _softmax_inputs(torch.float64)
    scores = wants @ negatives.T - fixed["negative_log_q_S"]
    scores[fixed["positive_ids_P"][:, None] == fixed["negative_ids_S"]] = float("-inf")
    own = (wants * positives).sum(dim=1, keepdim=True) - fixed["positive_log_q_P"][:, None]
    expected = torch.nn.functional.cross_entropy(
        torch.cat([own, scores], dim=1), torch.zeros(5, dtype=torch.long), reduction="none"
    )
    torch.testing.assert_close(sampled_softmax(wants, positives, negatives, **fixed), expected)


def test_the_gradients_of_the_losses_are_right() -> None:
    leaves, fixed = _softmax_inputs(torch.float64)
    assert torch.autograd.gradcheck(lambda *tensors: sampled_softmax(*tensors, **fixed), leaves)


def test_scores_far_apart_overflow_nothing() -> None:
    leaves, fixed = _softmax_inputs(torch.float32)
    losses = sampled_softmax(leaves[0] * 1e4, *leaves[1:], **fixed)
    losses.sum().backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(losses).all()
    assert all(torch.isfinite(leaf.grad).all() for leaf in leaves if leaf.grad is not None)


def test_the_correction_makes_a_sample_speak_for_the_whole() -> None:
    """Over many samples the corrected loss comes near to the loss over all items."""
    rng = np.random.default_rng(3)
    wants = torch.tensor([[1.0, -0.5]])
    items = torch.tensor(rng.standard_normal((200, 2)), dtype=torch.float32)
    popularity = 1 / np.arange(1, 201)
    popularity /= popularity.sum()
    exact = torch.logsumexp(wants @ items.T, dim=1) - (wants * items[:1]).sum()
    estimates = []
    for _ in range(200):
        drawn = rng.choice(200, 2_000, p=popularity)
        log_q = torch.tensor(np.log(2_000 * popularity), dtype=torch.float32)
        estimates.append(
            sampled_softmax(
                wants,
                items[:1],
                items[drawn],
                positive_ids_P=torch.tensor([0]),
                negative_ids_S=torch.tensor(drawn),
                # what is left out as a hit comes back with the target itself, at its full weight
                positive_log_q_P=torch.zeros(1),
                negative_log_q_S=log_q[drawn],
            )
        )
    assert abs(float(torch.stack(estimates).mean()) - float(exact)) < 0.02


def test_copies_of_an_item_do_not_compete_in_a_batch() -> None:
    items = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert float(in_batch_softmax(items, items, torch.tensor([4, 4]))) == pytest.approx(0.0)


def _network(features: int = 3) -> RankerNetwork:
    torch.manual_seed(4)
    return RankerNetwork(RankerShape(features))


def test_the_running_mean_and_variance_are_those_of_all_rows() -> None:
    network, rows = _network(), torch.randn(500, 3) * 3 + 5
    for part in rows.split(70):
        network.observe(part)
    torch.testing.assert_close(network.mean_F, rows.mean(dim=0))
    torch.testing.assert_close(network.variance_F, rows.var(dim=0, correction=0), rtol=1e-2, atol=1e-2)


def test_a_feature_that_never_varied_is_not_blown_up_when_it_does() -> None:
    network = _network()
    for _ in range(5):
        rows = torch.randn(100, 3)
        rows[:, 2] = 0
        network.observe(rows)
    assert float(network.variance_F[2]) == 1.0


def test_preferences_order_a_list_before_training() -> None:
    network = _network()
    network.prefer({1: 1.0})
    with torch.no_grad():
        ranks = network(torch.tensor([[0.0, -1.0, 0.0], [0.0, 1.0, 0.0]]))[:, 0]
    assert ranks[1] > ranks[0]


def test_the_loss_falls_when_the_followed_candidate_comes_first() -> None:
    labels, sizes, weights = torch.tensor([0, 4, 0, 1, 0]), torch.tensor([3, 2]), torch.ones(5)
    good, bad = torch.zeros(5, 4), torch.zeros(5, 4)
    good[:, 0] = torch.tensor([0.0, 3.0, 0.0, 3.0, 0.0])
    bad[:, 0] = -good[:, 0]
    assert ranking_loss(good, labels, sizes, weights) < ranking_loss(bad, labels, sizes, weights)


def test_a_row_counts_as_often_as_it_stands_for() -> None:
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(5))
    weighted = ranking_loss(logits, torch.tensor([4, 0, 0]), torch.tensor([3]), torch.tensor([1.0, 2.0, 1.0]))
    copied = ranking_loss(logits[[0, 1, 1, 2]], torch.tensor([4, 0, 0, 0]), torch.tensor([4]), torch.ones(4))
    torch.testing.assert_close(weighted, copied)


def test_a_group_without_a_label_teaches_no_order() -> None:
    logits = torch.zeros(2, 4, requires_grad=True)
    ranking_loss(logits, torch.tensor([0, 0]), torch.tensor([2]), torch.ones(2)).backward()
    assert logits.grad is not None
    assert logits.grad[:, 0].tolist() == [0.0, 0.0]
