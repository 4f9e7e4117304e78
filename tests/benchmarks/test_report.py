"""The report: what its figures show, and that it is one page complete in itself."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from report_runs import lay_run

from benchmarks.names import UsageError
from benchmarks.report.command import main
from benchmarks.report.figures import (
    COLOURS,
    MAP,
    draw_matrix,
    ink_on,
    look,
    luminance,
)
from benchmarks.report.series import (
    further_metrics,
    kept_bytes,
    make_charts,
    make_series,
)
from benchmarks.runs.accuracy_matrix import forgetting
from benchmarks.runs.results import read_runs
from benchmarks.tables.rows import make_rows


def page(folder, *options):
    """The report of all runs in a folder."""
    assert main([str(folder), *options]) == 0
    return (folder / "report.html").read_text(encoding="utf-8")


def charts(folder):
    """Charts of all runs in a folder, by title."""
    series = make_series(make_rows(read_runs([folder]), []))
    return {chart.title: chart for chart in make_charts(series)}


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_curves_are_mean_and_spread_over_seeds(tmp_path):
    for seed, final in enumerate((0.5, 0.75)):
        lay_run(tmp_path, seed=seed, matrix=[[1.0, None], [final, final]])
    [accuracy] = charts(tmp_path)["Accuracy"].curves.values()
    assert (accuracy.experiences, accuracy.mean, accuracy.n) == ([1, 2], [100, 62.5], 2)
    assert accuracy.spread == [0, pytest.approx(25 / 2**0.5)]


def test_last_point_of_forgetting_is_that_of_the_whole_matrix(tmp_path):
    matrix = [[0.9, None, None], [0.5, 0.8, None], [0.25, 0.5, 1.0]]
    lay_run(tmp_path, matrix=matrix)
    [curve] = charts(tmp_path)["Forgetting"].curves.values()
    assert curve.experiences == [2, 3]
    assert curve.mean[-1] == pytest.approx(100 * forgetting(matrix))


def test_experiences_without_evaluation_have_no_point(tmp_path):
    lay_run(tmp_path, matrix=[[None] * 3, [0.5, 0.5, None], [0.5, 0.5, 0.5]])
    [curve] = charts(tmp_path)["Accuracy"].curves.values()
    assert curve.experiences == [2, 3]


def test_memory_of_older_runs_is_that_of_the_end():
    old = {"memory_bytes": {"a": 1, "b": 2}, "experiences_finished": 3}
    assert kept_bytes(old) == [None, None, 3]
    new = {**old, "memory_over_experiences": [{}, {"a": 1}, {"a": 1, "b": 2}]}
    assert kept_bytes(new) == [0, 1, 3]


def test_further_metrics_are_empty_where_none_were_asked_for():
    assert further_metrics({}) == further_metrics({"further_metrics": None}) == {}


@pytest.mark.parametrize("background", ["#ffffff", "#171c22"])
def test_every_curve_stands_out_on_light_and_dark_pages(background):
    ratios = [contrast(to_rgb(colour), to_rgb(background)) for colour in COLOURS]
    assert min(ratios) >= 3  # WCAG 2.1, 1.4.11


def test_no_two_curves_look_alike():
    looks = [tuple(look(number).values()) for number in range(1, 71)]
    assert len(set(looks)) == 70


def test_numbers_in_a_matrix_can_be_read_whatever_their_value():
    for value in range(101):
        cell = colormaps[MAP](value / 100)[:3]
        assert contrast(cell, to_rgb(ink_on(cell))) >= 4.5


def test_large_matrices_are_images():
    n = 391
    matrix = [[0.5 if j <= i else None for j in range(n)] for i in range(n)]
    assert len(draw_matrix(matrix, "large")) < 60_000


def test_every_figure_has_words_and_its_ids_are_its_own(tmp_path):
    for recipe in ("naive", "replay"):
        lay_run(tmp_path, recipe=recipe)
    html = page(tmp_path)
    figures = re.findall(r"<figure.*?</figure>", html, re.DOTALL)
    assert len(figures) == 5  # accuracy, forgetting, memory, two matrices
    for figure in figures:
        assert 'role="img" aria-label="' in figure and "<figcaption>" in figure
    ids = re.findall(r'\bid="([^"]+)"', "".join(figures))
    assert ids and len(ids) == len(set(ids))
    used = re.findall(r'href="#(\w+)"|url\(#(\w+)\)', "".join(figures))
    assert {a or b for a, b in used} <= set(ids)


def test_page_refers_to_nothing_outside_itself(tmp_path):
    lay_run(tmp_path, pictures=["exemplars"])
    found = []

    class Links(HTMLParser):
        def handle_starttag(self, tag, attrs):
            found.extend(v for k, v in attrs if k in ("src", "href", "xlink:href"))

    Links().feed(page(tmp_path))
    assert any(link.startswith("data:image/png") for link in found)
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in found)


def test_texts_of_runs_are_no_markup(tmp_path):
    lay_run(tmp_path, note="<script>alert(1)</script>", command='run "<b>"')
    html = page(tmp_path)
    assert "<script" not in html and "<b>" not in html
    assert "&lt;script&gt;" in html


def test_how_each_run_was_made_is_told(tmp_path):
    lay_run(tmp_path, command="python -m benchmarks run x", commit="c0ffee")
    html = page(tmp_path)
    for text in ("python -m benchmarks run x", "c0ffee", "torch 2.14.1", "AMD EPYC"):
        assert text in html


def test_unfinished_runs_say_so(tmp_path):
    lay_run(tmp_path, finished=False, experiences=9)
    assert "unfinished: 3 of 9 experiences" in page(tmp_path)


def test_one_experience_gives_bars_and_no_matrix(tmp_path):
    lay_run(tmp_path, matrix=[[0.5]])
    html = page(tmp_path)
    assert "number in the legend" in html and "experiences trained" not in html
    assert "Accuracy matri" not in html


def test_page_is_the_same_each_time(tmp_path):
    lay_run(tmp_path)
    assert page(tmp_path) == page(tmp_path)


def test_path_of_the_page_is_the_last_line(tmp_path, capsys):
    lay_run(tmp_path)
    main([str(tmp_path), "--out", str(tmp_path / "page.html")])
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "page.html")
    assert not (tmp_path / "report.html").exists()


def test_what_cannot_be_done_is_refused_in_a_line(tmp_path):
    run = lay_run(tmp_path)
    for arguments, text in [
        (["--out", str(tmp_path)], "a folder; wanted the name of a file"),
        (["--out", str(tmp_path / "none" / "x")], "no folder .*none; wanted it"),
        (["--colour"], "report does not know --colour"),
    ]:
        with pytest.raises(UsageError, match=text):
            main([str(tmp_path), *arguments])
    (run / "accuracy.csv").unlink()
    with pytest.raises(UsageError, match="accuracy.csv; wanted it beside run.json"):
        main([str(tmp_path)])


def test_results_without_the_newer_keys_are_shown(tmp_path):
    run = lay_run(tmp_path)
    record = json.loads((run / "run.json").read_text())
    for key in ("memory_over_experiences", "further_metrics", "peak_memory_bytes"):
        del record[key]
    (run / "run.json").write_text(json.dumps(record))
    assert page(tmp_path).count("<figure") == 4
