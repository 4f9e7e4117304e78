"""Class means of features, and the gradient of a loss through them."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize
from torch.testing import assert_close

from avalanche_ext.functional.herding import herding_indices
from avalanche_ext.functional.nearest_mean import (
    nearest_mean_scores,
    unit_class_means,
)


def test_class_means_agree_with_the_definition_written_slowly(rng):
    f, g = torch.randn(2, 9, 4, generator=rng, dtype=torch.double)
    y = torch.tensor([2, 0, 2, 4, 0, 0, 4, 2, 2])
    means, of_one = unit_class_means(f, y, 6, g), unit_class_means(f, y, 6)
    zero = torch.zeros(4, dtype=torch.double)
    for k in range(6):
        rows = [i for i in range(9) if y[i] == k]
        views = [v[i] / v[i].norm() for v in (f, g) for i in rows]
        both = sum(views, zero) / max(1, len(views))
        one = sum(views[: len(rows)], zero) / max(1, len(rows))
        for ours, wanted in ((means[k], both), (of_one[k], one)):
            assert_close(ours, wanted / wanted.norm() if rows else zero)


def test_class_means_have_length_one_and_ignore_the_length_of_features(rng):
    f, y = torch.randn(8, 3, generator=rng), torch.arange(8) % 4
    means = unit_class_means(f, y, 4)
    assert_close(means.norm(dim=1), torch.ones(4))
    assert_close(unit_class_means(f * torch.arange(1, 9)[:, None], y, 4), means)


def test_the_highest_score_belongs_to_the_nearest_mean(rng):
    f = torch.randn(50, 5, generator=rng)
    means = normalize(torch.randn(7, 5, generator=rng), dim=1)
    scores = nearest_mean_scores(f, means)
    # whether features are scaled to unit length or not, as means are
    for features in (f, normalize(f, dim=1)):
        assert torch.equal(
            torch.cdist(features, means).argmin(dim=1), scores.argmax(dim=1)
        )
    assert_close(scores, torch.cosine_similarity(f[:, None], means[None], dim=2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_features_of_zeros_give_zeros(dtype):
    zeros, y = torch.zeros(3, 2, dtype=dtype), torch.tensor([0, 0, 1])
    means = unit_class_means(zeros, y, 2, zeros)
    assert torch.equal(means, torch.zeros(2, 2))
    assert torch.equal(nearest_mean_scores(zeros, means), torch.zeros(3, 2))
    assert torch.equal(unit_class_means(zeros[:0], y[:0], 2), torch.zeros(2, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"targets": torch.tensor([0, 3])},
            r"targets go from 0 to 3; wanted .* 0 to 2",
        ),
        ({"targets": torch.tensor([-1, 0])}, "targets go from -1 to 0"),
        ({"targets": torch.tensor([0])}, "wanted one int64 for each of 2"),
        ({"targets": torch.zeros(2)}, r"targets is torch.float32 .*; wanted one int64"),
        ({"n_classes": 0}, "n_classes is 0"),
        ({"second_view": torch.zeros(2, 5)}, r"second_view is \(2, 5\)"),
    ],
)
def test_class_means_refuse_what_does_not_fit(change, message):
    given = {"features": torch.ones(2, 4), "targets": torch.tensor([0, 1])}
    with pytest.raises(ValueError, match=message):
        unit_class_means(**{**given, "n_classes": 3, **change})


def test_scores_refuse_other_dimensions():
    with pytest.raises(ValueError, match="4 dimensions, means 5"):
        nearest_mean_scores(torch.ones(2, 4), torch.ones(3, 5))


@pytest.mark.golden("mnemonics", "herding*.npz")
@pytest.mark.parametrize("budget", ["first", "second"])
def test_ranks_and_class_means_agree_with_the_authors(golden, budget):
    f, g = golden["features"], golden["features_view2"]
    n_classes, n, _ = f.shape
    size = min(golden[f"budget_{budget}"], n)
    picks = torch.stack([herding_indices(own, size, "lucir") for own in f])
    rank = golden["rank"].gather(1, picks)
    assert torch.equal(rank, torch.arange(1, size + 1).expand(n_classes, -1))
    kept = picks.sort(dim=1).values
    assert torch.equal(kept, golden[f"kept_{budget}"])
    # of the exemplars, and of all data
    for column, rows in enumerate((kept, torch.arange(n).expand(n_classes, -1))):
        views = [v.gather(1, rows[..., None].expand(-1, -1, 64)) for v in (f, g)]
        y = torch.arange(n_classes).repeat_interleave(rows.shape[1])
        first, second = (v.flatten(0, 1) for v in views)
        means = unit_class_means(first, y, n_classes, second)
        wanted = golden[f"class_means_{budget}"][..., column].T
        assert_close(means, wanted, rtol=0, atol=1e-10)


@pytest.mark.golden("mnemonics", "nme.npz")
def test_predictions_agree_with_the_authors(golden):
    f, (of_exemplars, of_all) = golden["features"], golden["class_means"].unbind(2)
    # the cosine classifier that starts from the means and is tuned on the exemplars
    tuned = of_exemplars.T.float().requires_grad_()
    optimizer = torch.optim.SGD([tuned], lr=golden["finetune_lr"])
    for _ in range(golden["finetune_epochs"]):
        optimizer.zero_grad()
        scores = nearest_mean_scores(golden["exemplar_features"], tuned)
        cross_entropy(scores, golden["exemplar_labels"]).backward()
        optimizer.step()
    tuned.requires_grad_(False)
    assert_close(tuned, golden["finetuned_weights"], rtol=1e-5, atol=1e-7)
    scores = [golden["linear_logits"]]
    scores += [nearest_mean_scores(f.double(), m.T) for m in (of_exemplars, of_all)]
    scores += [nearest_mean_scores(f, tuned)]
    predictions = [s.argmax(dim=1) for s in scores]
    for ours, name in zip(predictions, ("linear", "nme", "ncm", "finetuned")):
        assert torch.equal(ours, golden[f"pred_{name}"])
    right = [(p == golden["labels"]).double().mean() for p in predictions]
    assert_close(100 * torch.stack(right), golden["accuracies"])
