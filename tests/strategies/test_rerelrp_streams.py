"""ReReLRP: when it is evaluated, and on which streams it learns."""

from __future__ import annotations

from itertools import chain

import pytest
import torch
from avalanche.core import SupervisedPlugin
from cases import N_CLASSES, toy_benchmark
from rerelrp_hosts import (
    evaluator,
    growing,
    mlp,
    rerelrp,
    shares,
    stream_of,
    trained,
)


class Answers(SupervisedPlugin):
    """Notes what each batch was answered, and what was recognised."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def after_eval_iteration(self, strategy, **kwargs):
        recognition = getattr(strategy, "recognition", None)
        self.seen.append((strategy.mb_y, strategy.mb_output, recognition))

    def whole(self):
        """All samples: labels, answers, and what was recognised, if it was."""
        y, output, found = zip(*self.seen)
        parts = zip(*found) if all(found) else ()
        return torch.cat(y), torch.cat(output), [torch.cat(p) for p in parts]


def answers(strategy, stream):
    """Of an evaluation; the plugin acts behind the strategy's own."""
    [notes] = [p for p in strategy.plugins if isinstance(p, Answers)]
    notes.seen.clear()
    strategy.eval(stream)
    return notes.whole()


def noted(model=None, **options):
    return rerelrp(model, plugins=[Answers()], **options)


@pytest.mark.parametrize("eval_mode", ["task_agnostic", "task_aware"])
def test_evaluation_before_any_training_is_refused(eval_mode):
    strategy = rerelrp(eval_mode=eval_mode)
    with pytest.raises(ValueError, match="before any experience was learned; wanted"):
        strategy.eval(stream_of().test_stream)
    trained(strategy, n=1).eval(stream_of().test_stream)


@pytest.mark.parametrize("peval_mode", ["epoch", "iteration"])
def test_evaluation_within_training_changes_nothing(peval_mode):
    stream, found = stream_of(), []
    for options in ({}, {"eval_every": 2, "peval_mode": peval_mode}):
        torch.manual_seed(0)
        strategy = noted(**options)
        for experience in stream.train_stream:
            strategy.train(experience, eval_streams=[stream.test_stream])
        found.append(
            (strategy.model.state_dict(), answers(strategy, stream.test_stream))
        )
    assert not hasattr(strategy, "recognition")
    for name, value in found[0][0].items():
        assert torch.equal(found[1][0][name], value)
    assert torch.equal(found[1][1][1], found[0][1][1])


def test_within_training_old_classes_are_answered_by_submodels_and_new_by_the_net():
    class Late(Answers):
        def after_training_epoch(self, strategy, **kwargs):
            if strategy.clock.train_exp_counter == 1:
                self.seen.clear()
                strategy.eval(stream.test_stream)
                self.found = self.whole()

    stream, late = stream_of(), Late()
    strategy = rerelrp(plugins=[late], eval_mode="task_aware")
    strategy.train(stream.train_stream[0])
    submodel = strategy.submodel(0)
    strategy.train(stream.train_stream[1])
    y, output, (owner, chosen, *_) = late.found
    assert owner.tolist() == [0 if label < 2 else -1 for label in y]
    assert not chosen.any()  # no other can be chosen yet
    x = torch.stack([item[0] for item in stream.test_stream[0].dataset])
    assert torch.equal(output[:20, :2], submodel(x))
    assert (output[:20, 2:] == -1000).all()
    others = output[20:]
    assert (others[:, [0, 1, 4, 5]] == -1000).all()
    right = others[:20].argmax(1) == y[20:40]
    assert right.float().mean() > 0.8


def test_classes_to_come_are_nobodys_and_counted_wrong():
    stream, strategy = stream_of(), noted(evaluator=evaluator())
    strategy.train(stream.train_stream[0])
    y, _, (owner, chosen, *_) = answers(strategy, stream.test_stream)
    assert owner.tolist() == [0 if label < 2 else -1 for label in y]
    assert not chosen.any()
    metrics = strategy.eval(stream.test_stream)
    [later] = [
        v for k, v in metrics.items() if "TaskRecognition_Acc_Exp" in k and "002" in k
    ]
    assert later == 0 and shares(metrics)["TaskRecognition_Acc"] == 1


@pytest.mark.parametrize("recognition_pass", ["stacked", "each"])
@pytest.mark.parametrize("make", [mlp, growing])
def test_a_joint_experience_is_answered_as_its_parts(make, recognition_pass):
    joint = toy_joint().test_stream
    stream = stream_of()
    strategy = trained(noted(make(), recognition_pass=recognition_pass))
    y, output, found = answers(strategy, stream.test_stream)
    joint_y, joint_output, joint_found = answers(strategy, joint)
    one, other = y.argsort(stable=True), joint_y.argsort(stable=True)
    assert torch.equal(y[one], joint_y[other])
    assert torch.equal(found[0][one], joint_found[0][other])
    assert torch.equal(found[1][one], joint_found[1][other])
    torch.testing.assert_close(joint_output[other], output[one])


def toy_joint():
    return stream_of(sizes=(N_CLASSES,))


@pytest.mark.parametrize("recognition_pass", ["stacked", "each"])
def test_answers_are_those_of_the_submodel_recognised(recognition_pass):
    strategy = trained(noted(recognition_pass=recognition_pass))
    stream = stream_of().test_stream
    y, output, (owner, chosen, aware, agnostic) = answers(strategy, stream)
    assert torch.equal(output, agnostic) and torch.equal(owner, y // 2)
    x = torch.cat([torch.stack([i[0] for i in e.dataset]) for e in stream])
    for k in range(3):
        own, columns = strategy.submodel(k), [2 * k, 2 * k + 1]
        found, wanted = agnostic[chosen == k][:, columns], own(x[chosen == k])
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
        assert torch.equal(aware[owner == k][:, columns], own(x[owner == k]))
        others = [c for c in range(N_CLASSES) if c not in columns]
        assert (agnostic[chosen == k][:, others] == -1000).all()
        assert (aware[owner == k][:, others] == -1000).all()


def test_both_modes_measure_the_same_and_differ_in_their_answers():
    found, outputs = [], []
    for eval_mode in ("task_agnostic", "task_aware"):
        torch.manual_seed(0)
        strategy = trained(noted(eval_mode=eval_mode, evaluator=evaluator()))
        found.append(shares(strategy.eval(stream_of().test_stream)))
        y, output, _ = answers(strategy, stream_of().test_stream)
        outputs.append(float((output.argmax(1) == y).float().mean()))
    assert found[0] == found[1]
    assert outputs == pytest.approx(
        [found[0]["TaskAgnostic_Acc"], found[0]["TaskAware_Acc"]]
    )
    assert outputs[0] < outputs[1]


def test_one_experience_needs_no_recognition():
    strategy = trained(noted(), n=1)
    _, _, found = answers(strategy, stream_of().test_stream[0])
    owner, chosen, aware, agnostic = found
    assert not chosen.any() and not owner.any()
    torch.testing.assert_close(aware, agnostic)


@pytest.mark.parametrize("make", [mlp, growing])
def test_class_ids_may_come_in_any_order(make):
    order = [3, 0, 5, 2, 4, 1]
    stream = stream_of(order)
    model = make()
    if make is growing:
        strategy = noted(model, evaluator=evaluator(), train_epochs=8)
    else:
        strategy = noted(model, evaluator=evaluator())
    strategy = trained(strategy, stream)
    assert strategy._freezing.submodels.classes == [(0, 3), (2, 5), (1, 4)]
    y, _, (owner, *_) = answers(strategy, stream.test_stream)
    assert owner.tolist() == [{0: 0, 3: 0, 2: 1, 5: 1, 1: 2, 4: 2}[int(c)] for c in y]
    assert shares(strategy.eval(stream.test_stream))["TaskAware_Acc"] > 0.8


@pytest.mark.parametrize("sizes", [(1, 3, 2), (3, 1, 2), (2, 3, 1)])
def test_experiences_may_be_of_one_class_with_a_warning(sizes):
    stream = stream_of(sizes=sizes)
    # no batch of one sample, which batch normalisation refuses
    strategy = noted(evaluator=evaluator(), train_mb_size=12)
    for size, experience in zip(sizes, stream.train_stream):
        if size > 1:
            strategy.train(experience)
            continue
        with pytest.warns(match="one class alone is always told right"):
            strategy.train(experience)
        keep = strategy._freezing.submodels.keeps[-1]
        assert {int(units.sum()) for units in keep.values()} == {1}
    found = shares(strategy.eval(stream.test_stream))
    assert found["TaskAware_Acc"] > 0.7 and found["TaskAgnostic_Acc"] > 0.4


def test_classes_that_come_back_are_refused_before_anything_changes():
    stream, strategy = stream_of().train_stream, rerelrp()
    strategy.train(stream[:2])
    before = {k: v.clone() for k, v in strategy.model.state_dict().items()}
    with pytest.raises(ValueError, match=r"classes \[0, 1\] were learned before"):
        strategy.train(stream[0])
    for name, value in strategy.model.state_dict().items():
        assert torch.equal(value, before[name])
    strategy.train(stream[2])
    assert len(strategy._freezing.submodels) == 3


def test_classes_that_come_back_may_stay_with_their_first_submodel():
    stream, strategy = stream_of().train_stream, noted(on_repeat="ignore")
    strategy.train(stream[:2])
    before = answers(strategy, stream_of().test_stream)
    rows = [[r.clone() for r in own] for own in strategy._detectors.rows]
    strategy.train(stream[0])
    _, output, _ = answers(strategy, stream_of().test_stream)
    assert torch.equal(output[:40], before[1][:40])  # those after are of nobody
    assert len(strategy._freezing.submodels) == len(strategy._detectors) == 2
    assert all(
        torch.equal(a, b)
        for a, b in zip(chain(*rows), chain(*strategy._detectors.rows), strict=True)
    )
    strategy.train(stream[2])
    assert strategy._freezing.submodels.classes == [(0, 1), (2, 3), (4, 5)]


def test_of_classes_new_and_old_only_the_new_get_a_submodel():
    old, whole = stream_of(sizes=(2, 2, 2)), toy_joint()
    strategy = noted(on_repeat="ignore")
    strategy.train(old.train_stream[1])
    strategy.train(whole.train_stream[0])
    assert strategy._freezing.submodels.classes == [(2, 3), (0, 1, 4, 5)]
    y, _, (owner, *_) = answers(strategy, whole.test_stream)
    assert owner.tolist() == [0 if c in (2, 3) else 1 for c in y.tolist()]


def test_task_labels_change_nothing():
    found = []
    for api in ("old", "old_task_labels"):
        torch.manual_seed(0)
        stream = toy_benchmark(api)
        strategy = trained(noted(), stream)
        found.append(answers(strategy, stream.test_stream)[1])
    assert torch.equal(found[0], found[1])
