"""The table of results, and what it dares to say."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.names import UsageError
from benchmarks.recipes import RECIPES
from benchmarks.table import METRICS, make_rows, print_table, told_apart
from benchmarks.targets import Target, read_targets

TARGET = Target(
    recipe="lucir_cifar100",
    setting={"n_experiences": "6", "test_images": "10000"},
    metric="average_incremental_accuracy",
    value=63.4,
    source="a paper",
    certainty="copied",
)
METRIC = TARGET.metric


def run(average=0.634, **changes):
    """Contents of a run.json that reproduces the target, but for the changes."""
    record = {
        "recipe": "lucir_cifar100",
        "seed": 0,
        "smoke": False,
        "finished": True,
        "experiences": 6,
        "experiences_finished": 6,
        "setting": "split_cifar100, 6 experiences",
        "memory": "20 exemplars a class",
        "options": {"n_experiences": 6, "lr": 0.1, "memory_resident": "auto"},
        "changed": [],
        "metrics": {"final_accuracy": 0.5, METRIC: average, "forgetting": None},
        "test_images": [5000] + [1000] * 5,
        "minutes": 1.5,
    }
    return {**record, **changes}


def verdicts(*runs, targets=(TARGET,)):
    """What the table says of each group of runs."""
    return [pair for row in make_rows(runs, targets) for pair in row.verdicts()]


def test_mean_over_seeds_decides():
    runs = [run(0.620, seed=0), run(0.640, seed=1)]
    assert verdicts(*runs) == [("reproduced", TARGET)]
    assert verdicts(runs[0]) == [("differs: -1.4", TARGET)]


def test_a_copied_folder_is_no_second_run():
    [row] = make_rows([run(0.62), run(0.62), run(0.64, seed=1)], [])
    assert [record["seed"] for record in row.runs] == [0, 1]


@pytest.mark.parametrize("average", [0.623, 0.645])
def test_figure_more_than_a_point_away_differs_in_both_directions(average):
    [(text, _)] = verdicts(run(average))
    assert text == f"differs: {100 * average - 63.4:+.1f}"


@given(
    average=st.floats(0, 1),
    smoke=st.booleans(),
    finished=st.booleans(),
    changed=st.lists(st.sampled_from(["lr", "n_experiences", "memory_resident"])),
    images=st.sampled_from([5000, 10000]),
)
def test_only_the_whole_protocol_stands_beside_the_papers_figure(
    average, smoke, finished, changed, images
):
    [(text, figure)] = verdicts(
        run(
            average,
            smoke=smoke,
            finished=finished,
            changed=changed,
            test_images=[images],
        )
    )
    whole = finished and not smoke and "lr" not in changed and images == 10000
    assert (figure is TARGET) == whole
    assert text.startswith(("reproduced", "differs")) == whole


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"smoke": True, "changed": ["lr"]}, "scaled down"),
        ({"options": {"images_per_class": 100}}, "scaled down"),
        ({"changed": ["lr"]}, "other options: lr=0.1"),
        ({"finished": False, "experiences_finished": 2}, "unfinished: 2 of 6"),
        ({"test_images": [5000]}, "no target"),
        ({"recipe": "naive"}, "no target"),
    ],
)
def test_what_is_no_reproduction_is_named(changes, text):
    assert verdicts(run(**changes)) == [(text, None)]


def test_runs_with_unlike_options_are_never_averaged():
    other = run(options={"n_experiences": 6, "lr": 0.2}, changed=["lr"])
    assert len(make_rows([run(), other, run(smoke=True)], [TARGET])) == 3


def test_rows_of_one_recipe_say_in_which_options_they_differ(tmp_path, capsys):
    runs = [
        run(options={"bdr": True, "lr": 0.1}),
        run(options={"bdr": False, "lr": 0.1}),
        run(recipe="naive", options={"lr": 0.5}),
    ]
    rows = make_rows(runs, [])
    assert [told_apart(row, rows) for row in rows] == [["bdr=True"], ["bdr=False"], []]
    for i, record in enumerate(runs):
        (tmp_path / str(i)).mkdir()
        (tmp_path / str(i) / "run.json").write_text(json.dumps(record))
    print_table([tmp_path])
    printed = capsys.readouterr().out
    assert "bdr=True; 20 exemplars" in printed and "bdr=False; 20 exemp" in printed


def test_a_note_stands_in_the_head_and_keeps_rows_apart(tmp_path, capsys):
    for i, note in enumerate(("", "other [/b] images")):
        (tmp_path / str(i)).mkdir()
        (tmp_path / str(i) / "run.json").write_text(json.dumps(run(note=note)))
    print_table([tmp_path])
    heads = [x for x in capsys.readouterr().out.splitlines() if "6 experiences" in x]
    assert [head.strip() for head in heads] == [
        "split_cifar100, 6 experiences",
        "split_cifar100, 6 experiences; other [/b] images",
    ]


def test_each_of_several_figures_is_compared():
    second = Target(**{**vars(TARGET), "value": 60.0, "source": "another"})
    found = verdicts(run(), targets=(TARGET, second))
    assert found == [("reproduced", TARGET), ("differs: +3.4", second)]


def test_printed_table_holds_means_spread_and_sources(tmp_path, capsys):
    for seed, average in enumerate((0.60, 0.62)):
        folder = tmp_path / str(seed)
        folder.mkdir()
        setting = {"network": "resnet32", "n_experiences": 6}
        record = run(average, seed=seed, options=setting)
        (folder / "run.json").write_text(json.dumps(record))
    print_table([tmp_path])
    out = capsys.readouterr().out
    for text in ("lucir_cifar100", "61.0±1.4", "50.0±0.0", "63.4 (1)", "differs: -2.4"):
        assert text in out
    assert "(1) average: Hou et al." in out


def test_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no results in .*benchmarks run"):
        print_table([tmp_path])


def test_targets_name_recipes_options_and_metrics_that_exist():
    for target in read_targets():
        options = RECIPES[target.recipe].function
        known = {"test_images", *options.__kwdefaults__}
        assert set(target.setting) <= known and target.metric in METRICS
        assert 0 < target.value < 100 and target.source and target.certainty


def test_targets_of_one_setting_are_found_from_the_default_options():
    defaults = {"n_experiences": 6, "network": "resnet32"}
    assert sum(t.fits(run(options=defaults)) for t in read_targets()) == 2


def test_unit_other_than_percent_is_refused(tmp_path):
    path = tmp_path / "targets.csv"
    path.write_text("recipe,setting,metric,value,unit,source,certainty\nx,,y,1,s,,\n")
    with pytest.raises(ValueError, match="unit 's' .*wanted '%'"):
        read_targets(path)
