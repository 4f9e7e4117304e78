"""Heads of several tasks."""

from __future__ import annotations

import copy
import io
from types import SimpleNamespace

import pytest
import torch
from avalanche.benchmarks.utils import DataAttribute, as_classification_dataset
from avalanche.models import MultiHeadClassifier
from avalanche.training.supervised import Naive
from cases import APIS, N_CLASSES, build, task_model, toy_benchmark, toy_extractor
from contract import run
from prior_cases import Points
from torch import nn
from torch.autograd import grad
from torch.nn.functional import linear
from torch.testing import assert_close

from avalanche_ext.models import TaskClassifier, TaskIncrementalClassifier
from avalanche_ext.models.past_data import require_task_labels
from avalanche_ext.models.task_classifier import (
    MASK_VALUE,
    task_classes_in,
)

FORMS = (None, 12)
forms = pytest.mark.parametrize("n_outputs", FORMS)


def experience(*pairs, labelled=True):
    """An experience with one sample a (task label, class id)."""
    targets = torch.tensor([c for _, c in pairs])
    data = as_classification_dataset(Points(torch.zeros(len(pairs), 1), targets))
    if labelled:
        tasks = DataAttribute([t for t, _ in pairs], "targets_task_labels", True)
        data = data.update_data_attribute("targets_task_labels", tasks)
    return SimpleNamespace(dataset=data)


def trained_on(*experiences, n_outputs=None):
    head = TaskClassifier(4, n_outputs)
    for each in experiences:
        head.train().adaptation(each)
    return head


def rows_of(head, x):
    """Outputs of all rows, by arrival."""
    return linear(x, torch.cat(list(head.weights)), torch.cat(list(head.biases)))


def tasks(*labels):
    return torch.tensor(labels)


@forms
def test_overlapping_class_ids_have_a_row_in_each_task(n_outputs, rng):
    head = trained_on(
        experience((0, 0), (0, 1)), experience((1, 0), (1, 1)), n_outputs=n_outputs
    )
    x = torch.randn(3, 4, generator=rng)
    rows = rows_of(head, x)
    logits = head(x, tasks(0, 1, 0))
    assert_close(logits, torch.stack([rows[0, :2], rows[1, 2:4], rows[2, :2]]))


@forms
def test_class_ids_that_go_on_are_masked_in_other_tasks(n_outputs, rng):
    head = trained_on(
        experience((0, 0), (0, 1)), experience((1, 2), (1, 3)), n_outputs=n_outputs
    )
    x = torch.randn(2, 4, generator=rng)
    logits, rows = head(x, tasks(0, 1)), rows_of(head, x)
    assert_close(logits[0, :2], rows[0, :2])
    assert_close(logits[1, 2:], rows[1, 2:4])
    assert (logits[0, 2:] == MASK_VALUE).all() and (logits[1, :2] == MASK_VALUE).all()


@forms
def test_without_task_labels_it_is_one_head_that_grows(n_outputs, rng):
    first = experience((0, 0), (0, 1), labelled=False)
    second = experience((0, 2), labelled=False)
    head = trained_on(first, second, n_outputs=n_outputs)
    x = torch.randn(2, 4, generator=rng)
    assert_close(head(x), rows_of(head, x)[:, :3])
    assert torch.equal(head(x), head(x, 0)) and torch.equal(head(x), head(x, tasks(0)))


@forms
def test_several_task_labels_in_one_experience_get_their_own_classes(n_outputs, rng):
    mixed = experience((0, 0), (3, 1), (0, 1), (3, 2))
    assert task_classes_in(mixed) == [(0, 0), (0, 1), (3, 1), (3, 2)]
    head = trained_on(mixed, n_outputs=n_outputs)
    logits = head(torch.randn(2, 4, generator=rng), tasks(0, 3))
    masked = [[False, False, True], [True, False, False]]
    assert (logits == MASK_VALUE).tolist() == masked


def test_units_that_a_narrow_head_lacks_are_masked_exactly(rng):
    head = trained_on(experience((0, 0)), experience((1, 0), (1, 1), (1, 2)))
    logits = head(torch.randn(1, 4, generator=rng), 0)
    assert logits[0, 1:].tolist() == [-1000.0, -1000.0]
    assert logits.softmax(1)[0, 1:].tolist() == [0, 0]


@forms
def test_a_task_that_was_never_trained_is_masked_as_a_whole(n_outputs, rng):
    head = trained_on(experience((0, 0), (0, 1)), n_outputs=n_outputs)
    head.eval().adaptation(experience((5, 0), (5, 6)))
    for labels in (5, -1, tasks(5, 5)):
        logits = head(torch.randn(2, 4, generator=rng), labels)
        assert logits.shape == (2, 7) and (logits == MASK_VALUE).all()


def test_evaluation_never_grows_the_head():
    head = trained_on(experience((0, 0), (0, 1)))
    head.eval().adaptation(experience((1, 0)))
    assert head.pairs.tolist() == [[0, 0], [0, 1]] and len(head.weights) == 1
    assert head.train()(torch.zeros(1, 4)).shape == (1, 2)


def test_evaluation_before_training_masks_everything():
    head = TaskClassifier(4).eval()
    head.adaptation(experience((0, 0), (0, 2)))
    assert (head(torch.zeros(2, 4), 0) == MASK_VALUE).all()


@forms
def test_classes_seen_again_keep_their_rows_and_new_ones_add_to_them(n_outputs, rng):
    head = trained_on(experience((0, 0), (0, 1)), n_outputs=n_outputs)
    x, old = torch.randn(2, 4, generator=rng), list(head.weights)
    before = head(x, 0).detach()
    head.adaptation(experience((0, 1), (0, 0), (0, 2)))
    assert head.pairs.tolist() == [[0, 0], [0, 1], [0, 2]]
    assert head.weights[0] is old[0]
    assert torch.equal(head(x, 0)[:, :2], before)


def test_one_layer_has_all_its_parameters_from_the_start():
    head = TaskClassifier(4, 3)
    before = [p for p in head.parameters()]
    assert [tuple(p.shape) for p in before] == [(3, 4), (3,)]
    head.grow([(0, 0), (1, 0), (2, 0)])
    assert all(a is b for a, b in zip(head.parameters(), before))
    assert len(before) == len(list(head.parameters()))


@forms
def test_only_rows_of_the_tasks_in_a_batch_get_gradients(n_outputs, rng):
    head = trained_on(experience((0, 0)), experience((1, 0)), n_outputs=n_outputs)
    head(torch.randn(3, 4, generator=rng), tasks(1, 1, 1)).sum().backward()
    grads = torch.cat([p.grad for p in head.weights])
    assert grads[0].abs().sum() == 0 < grads[1].abs().sum()


def test_one_label_for_all_asks_no_other_layer_and_gives_the_same_numbers(rng):
    head = trained_on(experience((0, 0)), experience((1, 0), (2, 1)))
    inputs = [torch.randn(3, 4, generator=rng, requires_grad=True), *head.parameters()]
    for label, mine in ((0, [0, 1, 3]), (1, [0, 2, 4]), (2, [0, 2, 4])):
        one, each = (head(inputs[0], t) for t in (label, tasks(label, label, label)))
        assert torch.equal(one, each)
        one, each = (
            grad(z.logsumexp(1).sum(), inputs, allow_unused=True) for z in (one, each)
        )
        assert all(torch.equal(one[i], each[i]) for i in mine)
        assert all(one[i] is None for i in {1, 2, 3, 4} - {*mine})


@forms
@pytest.mark.parametrize("stage", [0, 1, 2, 12])
def test_the_state_dict_of_any_stage_loads_into_a_new_head(n_outputs, stage, rng):
    head = trained_on(
        *(experience((k % 3, k)) for k in range(stage)), n_outputs=n_outputs
    )
    file = io.BytesIO()
    torch.save(head.state_dict(), file)
    file.seek(0)
    other = trained_on(experience((7, 0)), n_outputs=n_outputs)  # of another stage
    other.load_state_dict(torch.load(file, weights_only=True))
    assert [len(w) for w in other.weights] == [len(w) for w in head.weights]
    assert torch.equal(other.pairs, head.pairs)
    x = torch.randn(3, 4, generator=rng)
    for task in range(3) if stage else ():
        assert torch.equal(other(x, task), head(x, task))


def test_a_copy_grows_by_itself():
    head = trained_on(experience((0, 0)))
    other = copy.deepcopy(head)
    other.adaptation(experience((0, 1)))
    assert len(head.pairs) == 1 and len(other.pairs) == 2


def test_all_outputs_are_the_rows_by_arrival_only_meanwhile(rng):
    head = trained_on(experience((0, 0)), experience((1, 0)))
    x = torch.randn(2, 4, generator=rng)
    with head.all_outputs():
        assert_close(head(x, 1), rows_of(head, x))
    assert head(x, 1).shape == (2, 1)


def test_positions_count_the_classes_of_a_task_from_zero():
    head = trained_on(experience((0, 9), (0, 4)), experience((0, 6), (1, 1)))
    assert head.positions_in_task(tasks(4, 9, 6), 0).tolist() == [0, 2, 1]
    assert head.positions_in_task(tasks(1), 1).tolist() == [0]


def test_new_rows_have_the_precision_of_the_old_ones():
    head = trained_on(experience((0, 0))).double()
    head.adaptation(experience((1, 0)))
    assert {p.dtype for p in head.parameters()} == {torch.double}


def test_half_precision_features_give_float32_logits():
    head = trained_on(experience((0, 0)))
    assert head(torch.ones(1, 4, dtype=torch.bfloat16)).dtype == torch.float32


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("n_outputs", (None, N_CLASSES))
def test_the_optimizer_trains_rows_that_were_grown(n_outputs, api):
    strategy, _ = run(
        lambda **o: build(Naive, model=task_model(n_outputs), **o), api, evaluations=0
    )
    head = strategy.model.train_classifier
    of_optimizer = {id(p) for g in strategy.optimizer.param_groups for p in g["params"]}
    assert {id(p) for p in strategy.model.parameters()} == of_optimizer
    n_tasks = 3 if api.endswith("task_labels") else 1
    assert len(head.pairs) == N_CLASSES
    assert len(head.pairs[:, 0].unique()) == n_tasks
    last = strategy.optimizer.state[head.weights[-1]]["momentum_buffer"]
    assert last.abs().sum() > 0


def test_batches_of_several_tasks_agree_with_one_task_at_a_time(rng):
    strategy, _ = run(lambda **o: build(Naive, model=task_model(), **o), APIS[3])
    model = strategy.model.eval()
    x, t = torch.randn(6, 1, 6, 6, generator=rng), tasks(0, 1, 2, 2, 1, 0)
    together = model(x, t)
    assert model.features.shape == (6, 8)
    for i, task in enumerate(t.tolist()):
        assert_close(model(x[i : i + 1], task)[0], together[i])


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: TaskClassifier(0), "feature_size is 0; wanted a whole number"),
        (lambda: TaskClassifier(4, 0), "n_outputs is 0; wanted a whole number"),
        (lambda: TaskClassifier(4)(torch.zeros(1, 4)), "wanted adaptation first"),
        (lambda: TaskClassifier(4).grow([(0, -1)]), "wanted 0 to 999999"),
        (lambda: TaskClassifier(4).grow([(10**6, 0)]), "wanted 0 to 999999"),
        (lambda: TaskClassifier(4).grow([(0, 1), (0, 1)]), "wanted new, distinct"),
        (
            lambda: TaskClassifier(4, 1).grow([(0, 0), (0, 1)]),
            "n_outputs is 1, but 2 classes have come",
        ),
    ],
)
def test_what_cannot_be_is_refused(act, message):
    with pytest.raises(ValueError, match=message):
        act()


def test_a_refused_growth_changes_nothing():
    head = TaskClassifier(4)
    with pytest.raises(ValueError, match="wanted new, distinct pairs"):
        head.grow([(0, 0), (0, 0)])
    assert not len(head.weights) and not len(head.pairs)


@pytest.mark.parametrize("api", APIS)
def test_a_model_of_several_heads_needs_task_labels(api):
    several = TaskIncrementalClassifier(toy_extractor(), MultiHeadClassifier(8))
    first = toy_benchmark(api).train_stream[0]
    for model in (nn.Linear(1, 1), task_model()):
        require_task_labels(model, first)
    for model in (MultiHeadClassifier(8), several):
        if api == "new":
            with pytest.raises(ValueError, match="wanted a benchmark with them"):
                require_task_labels(model, first)
        else:
            require_task_labels(model, first)


@pytest.mark.parametrize("n_outputs", FORMS)
def test_heads_have_the_precision_asked_for_before_there_was_one(n_outputs):
    head = TaskClassifier(4, n_outputs).double()
    head.grow([(0, 0)])
    assert head(torch.zeros(2, 4, dtype=torch.double), 0).dtype == torch.double


@pytest.mark.parametrize("pairs", [[], [(0, 1), (0, 1)]])
def test_no_class_and_a_class_twice_are_refused(pairs):
    with pytest.raises(ValueError, match="to add to .*; wanted new, distinct pairs"):
        TaskClassifier(4).grow(pairs)
