"""The table of results, and what it dares to say."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.names import UsageError
from benchmarks.recipes import RECIPES
from benchmarks.runs.results import matrix_to_csv
from benchmarks.tables.rows import METRICS, make_rows, not_run, read_rows, told_apart
from benchmarks.tables.table import main
from benchmarks.tables.targets import Target, read_targets

TARGET = Target(
    recipe="lucir_cifar100",
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
        "memory_bytes": {"exemplars": 6144000},
        "hardware": {"gpu": None, "cpu": "a CPU", "threads": 1},
        "command": "python -m benchmarks run lucir_cifar100",
    }
    return {**record, **changes}


def marks(*runs, targets=(TARGET,)):
    """What the table says of each group of runs, and of which figure."""
    rows = make_rows(runs, targets)
    return [(c.mark, c.target) for row in rows for c in row.comparisons()]


def saved(folder, *runs):
    """Folder with a run.json of each."""
    for i, record in enumerate(runs):
        (folder / str(i)).mkdir()
        (folder / str(i) / "run.json").write_text(json.dumps(record))
    return str(folder)


def test_mean_over_seeds_decides():
    runs = [run(0.620, seed=0), run(0.640, seed=1)]
    assert marks(*runs) == [("reproduced", TARGET)]
    [row] = make_rows(runs[:1], [TARGET])
    [found] = row.comparisons()
    assert found.mark == "differs" and found.difference == pytest.approx(-1.4)


def test_a_copied_folder_is_no_second_run():
    [row] = make_rows([run(0.62), run(0.62), run(0.64, seed=1)], [])
    assert [record["seed"] for record in row.runs] == [0, 1]


@pytest.mark.parametrize("average", [0.623, 0.645])
def test_figure_more_than_a_point_away_differs_in_both_directions(average):
    [row] = make_rows([run(average)], [TARGET])
    [found] = row.comparisons()
    assert found.mark == "differs"
    assert found.difference == pytest.approx(100 * average - 63.4)


@given(
    average=st.floats(0, 1),
    smoke=st.booleans(),
    finished=st.booleans(),
    changed=st.lists(st.sampled_from(["lr", "memory_resident"])),
    note=st.sampled_from(["", "other images"]),
)
def test_only_the_whole_protocol_stands_beside_the_papers_figure(
    average, smoke, finished, changed, note
):
    given_run = run(average, smoke=smoke, finished=finished, changed=changed, note=note)
    [(text, figure)] = marks(given_run)
    whole = finished and not smoke and "lr" not in changed and not note
    assert (figure is TARGET) == whole
    assert (text in ("reproduced", "differs")) == whole


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"smoke": True, "changed": ["lr"]}, "scaled down"),
        ({"options": {"images_per_class": 100}}, "scaled down"),
        ({"note": "stand-in images"}, "scaled down"),
        ({"changed": ["lr"]}, "other options: lr=0.1"),
        ({"finished": False, "experiences_finished": 2}, "unfinished: 2 of 6"),
        ({"recipe": "naive"}, "no target"),
    ],
)
def test_what_is_no_reproduction_is_named(changes, text):
    assert marks(run(**changes)) == [(text, None)]


def test_a_recalled_figure_is_shown_and_never_reproduced():
    recalled = replace(TARGET, certainty="recalled")
    assert marks(run(), targets=[recalled]) == [("figure not comparable", recalled)]


def test_figures_without_a_run_of_their_protocol_are_not_run():
    other = replace(TARGET, recipe="lucir_cifar100_10x5")
    rows = make_rows([run(smoke=True)], [TARGET, other])
    assert not_run(rows, [TARGET, other]) == [TARGET, other]
    rows = make_rows([run()], [TARGET, other])
    assert not_run(rows, [TARGET, other]) == [other]


def test_runs_with_unlike_options_are_never_averaged():
    other = run(options={"n_experiences": 6, "lr": 0.2}, changed=["lr"])
    assert len(make_rows([run(), other, run(smoke=True)], [TARGET])) == 3


def test_class_orders_drawn_by_the_seed_are_one_row():
    runs = [
        run(
            seed=s,
            setting=f"a stream{f', seed {s}' if s else ''}; a network",
            options={"stream_seed": s},
            changed=["stream_seed"] if s else [],
        )
        for s in (0, 1)
    ]
    [row] = make_rows(runs, [TARGET])
    assert len(row.runs) == 2 and row.setting == "a stream; a network"
    assert [c.mark for c in make_rows(runs[1:], [TARGET])[0].comparisons()] == [
        "reproduced"
    ]


def test_bytes_taken_over_from_another_run_keep_seeds_together():
    like = [
        run(seed=s, like="rerelrp_mnist", options={"lr": 0.1, "memory_bytes": 90 + s})
        for s in (0, 1)
    ]
    assert len(make_rows(like, [])) == 1 and len(make_rows([*like, run()], [])) == 2


def test_rows_of_one_recipe_say_in_which_options_they_differ(tmp_path, capsys):
    runs = [
        run(options={"bdr": True, "lr": 0.1}),
        run(options={"bdr": False, "lr": 0.1}),
        run(recipe="naive", options={"lr": 0.5}),
    ]
    rows = make_rows(runs, [])
    assert [told_apart(row, rows) for row in rows] == [["bdr=True"], ["bdr=False"], []]
    assert main([saved(tmp_path, *runs)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "bdr=True; 20 exemplars" in printed and "bdr=False; 20 exem" in printed


def test_a_note_stands_in_the_head_and_keeps_rows_apart(tmp_path, capsys):
    main([saved(tmp_path, run(note=""), run(note="other [/b] images"))])
    heads = [x for x in capsys.readouterr().out.splitlines() if "6 experiences" in x]
    assert [head.strip() for head in heads] == [
        "split_cifar100, 6 experiences",
        "split_cifar100, 6 experiences; other [/b] images",
    ]


def test_each_of_several_figures_is_compared():
    second = replace(TARGET, value=60.0, source="another")
    found = marks(run(), targets=(TARGET, second))
    assert found == [("reproduced", TARGET), ("differs", second)]


def figures():
    """The published averages of the recipe that is run."""
    own = (t for t in read_targets() if t.recipe == TARGET.recipe)
    return [target.value for target in own if target.metric == METRIC]


@pytest.fixture
def two_seeds(tmp_path):
    runs = [run(average, seed=s) for s, average in enumerate((0.60, 0.62))]
    return saved(tmp_path, *runs)


def test_printed_table_holds_means_spread_and_sources(two_seeds, capsys):
    assert main([two_seeds]) == 0
    out = capsys.readouterr().out
    for text in (
        "lucir_cifar100",
        "61.0±1.4",
        "50.0±0.0",
        "63.4 (1)",
        "-2.4",
        "differs",
    ):
        assert text in out
    for text in ("(1) average: Hou et al.", "6.1 MB", "hardware 1: a CPU, 1 thread"):
        assert text in out
    left = len(read_targets()) - len(figures())
    assert f"{left} published figures are not run" in " ".join(out.split())


def test_markdown_has_as_many_cells_in_each_line_and_the_commands(two_seeds, capsys):
    assert main([two_seeds, "--format", "markdown", "--not-run"]) == 0
    out = capsys.readouterr().out
    tables = [block for block in out.split("\n\n") if block.startswith("|")]
    assert len(tables) == 2
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1
    assert "```text\npython -m benchmarks run lucir_cifar100\n```" in out
    assert "| `lucir_cifar100_10x5` | average | 60.2 |" in out and "not run |" in out


def test_csv_has_a_line_for_each_figure(two_seeds, capsys):
    assert main([two_seeds, "--format", "csv", "--not-run"]) == 0
    lines = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    own = [line for line in lines if line["mark"] != "not run"]
    compared = [f"{value}" for value in figures()]
    assert [line["paper"] for line in own] == [*compared, "", ""]
    assert own[0]["mean"] == "61.0000" and own[0]["difference"] == "-2.4200"
    assert own[0]["sd"] == "1.4142" and own[0]["memory_bytes"] == "6144000"
    assert len(lines) - len(own) == len(read_targets()) - len(figures())


def test_metrics_that_an_older_run_lacks_come_from_its_matrix(tmp_path):
    folder = saved(tmp_path, run(experiences_finished=2, test_images=[9, 9]))
    matrix = [[1.0, None], [0.5, 0.75]]
    (tmp_path / "0" / "accuracy.csv").write_text(matrix_to_csv(matrix))
    [row] = read_rows([Path(folder)], [])
    assert row.percent("mean_experience_accuracy") == [62.5]
    assert row.percent("final_accuracy") == [50.0]  # what the run says stands


def test_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no results in .*benchmarks run"):
        main([str(tmp_path)])


@pytest.mark.parametrize("wrong", [["--formt", "csv"], ["--format", "pdf"]])
def test_wrong_option_is_refused(wrong):
    with pytest.raises(
        UsageError, match=wrong[-1] if wrong[0] == "--format" else "--f"
    ):
        main(wrong)


def test_targets_name_recipes_and_metrics_that_exist():
    for target in read_targets():
        assert target.recipe in RECIPES and target.metric in METRICS
        assert 0 < target.value < 100 or "forgetting" in target.metric
        assert target.source and (target.seeds or 1) >= 1
    figures = [(t.recipe, t.metric, t.source) for t in read_targets()]
    assert len(figures) == len(set(figures))


def test_unit_other_than_percent_is_refused(tmp_path):
    path = tmp_path / "targets.csv"
    path.write_text(
        "recipe,metric,value,spread,seeds,unit,source,certainty\nx,y,1,,,s,,\n"
    )
    with pytest.raises(ValueError, match="unit 's' .*wanted '%'"):
        read_targets(path)
    path.write_text(path.read_text().replace(",s,", ",%,"))
    with pytest.raises(ValueError, match="certainty '' .*wanted one of paper's"):
        read_targets(path)
