"""Tables in pages are those that their commands print."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.names import UsageError
from benchmarks.tables.pages import PLACE, with_tables
from benchmarks.tables.table import main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "docs" / "results.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_of_the_documentation_are_up_to_date(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = page.read_text()
    assert PLACE.search(text)
    assert with_tables(text, main) == text, (
        "python -m benchmarks table --write README.md docs/results.md"
    )


def record(recipe, seed, final, **changes):
    return {
        "recipe": recipe,
        "seed": seed,
        "smoke": False,
        "finished": True,
        "experiences": 2,
        "experiences_finished": 2,
        "setting": "a stream; a network",
        "memory": "",
        "options": {"images_per_class": 9},
        "changed": ["images_per_class"],
        "metrics": {"final_accuracy": final},
        "test_images": [10, 10],
        "minutes": 1.0,
        "memory_bytes": {"exemplars": 2000},
        "command": f"python -m benchmarks run {recipe}",
        **changes,
    }


@pytest.fixture
def results(tmp_path):
    runs = [
        *(record("bdr_digits", seed, 0.5 + seed / 10) for seed in (0, 1)),
        record("lucir_digits", 0, 0.4),  # without baselines
        record("naive", 0, 0.2, like="bdr_digits"),
        record("der", 0, 0.3, like="bdr_digits"),
        record("replay", 0, 0.9),  # in no one's frame
        record(
            "der",
            1,
            0.9,
            like="bdr_digits",
            finished=False,
            experiences_finished=1,
        ),
    ]
    for i, run in enumerate(runs):
        folder = tmp_path / "results" / str(i)
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps(run))
    return tmp_path / "results"


def test_baselines_stand_in_the_columns_of_the_method_they_were_run_beside(
    results, capsys
):
    assert main([str(results), "--format", "beside"]) == 0
    head, _, *lines = capsys.readouterr().out.splitlines()
    assert [cell.strip() for cell in head.split("|")][7:-2] == ["naive", "der"]
    [line] = lines
    assert [cell.strip() for cell in line.split("|")[1:-1]] == [
        "`bdr_digits`",
        "a stream; a network",
        "2",
        "55.0±7.1",
        "2.0 kB",
        "1.0",
        "20.0",
        "30.0",
        "scaled down",
    ]


def test_written_page_keeps_all_but_its_tables(results, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    start = "before\n\n<!-- table results --format beside -->\n"
    page.write_text(f"{start}old\n<!-- /table -->\n\nafter\n")
    assert main(["--write", str(page)]) == 0
    text = page.read_text()
    assert text.startswith(start) and text.endswith("\n\n<!-- /table -->\n\nafter\n")
    assert "| `bdr_digits` |" in text and "old" not in text
    assert main(["--write", str(page)]) == 0 and page.read_text() == text
    with pytest.raises(UsageError, match="no page .*; wanted a file of Markdown"):
        main(["--write", str(tmp_path / "none.md")])


def test_written_page_keeps_its_line_ends_and_its_fenced_blocks(
    results, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    place = b"<!-- table results --format beside -->\r\n<!-- /table -->\r\n"
    fenced = b"```text\r\n" + place + b"```\r\n"
    page.write_bytes(fenced + place)
    assert main(["--write", str(page)]) == 0
    written = page.read_bytes()
    assert written.startswith(fenced) and written.count(b"`bdr_digits`") == 1
    assert written.count(b"\n") == written.count(b"\r\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"words\n", "there is no table; wanted <!-- table RESULTS"),
        (b"```\n<!-- table results -->\n<!-- /table -->\n```\n", "there is no table"),
        (b"<!-- table results -->\nold\n", "<!-- table results --> is half of a table"),
        (b"<!-- /table -->\n", "<!-- /table --> is half of a table"),
        (
            b"<!-- table one -->\n<!-- table two -->\n<!-- /table -->\n",
            "<!-- table one --> is half of a table",
        ),
        (b"<!-- table 'results -->\n<!-- /table -->\n", "No closing quotation"),
        (b"<!-- table nowhere -->\n<!-- /table -->\n", "no folder nowhere"),
        (b"caf\xe9\n", "wanted UTF-8"),
    ],
)
def test_page_that_cannot_be_written_is_named_and_none_is_touched(
    text, message, results, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    good, bad = tmp_path / "good.md", tmp_path / "bad.md"
    good.write_text("<!-- table results -->\n<!-- /table -->\n")
    bad.write_bytes(text)
    before = good.read_bytes()
    with pytest.raises(UsageError, match="bad.md") as error:
        main(["--write", str(good), str(bad)])
    assert message in str(error.value)
    assert good.read_bytes() == before and bad.read_bytes() == text


def test_baselines_in_columns_are_refused_where_there_are_none(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps(record("bdr_digits", 0, 0.5)))
    with pytest.raises(UsageError, match="has baselines .made with --like, or sweep"):
        main([str(tmp_path), "--format", "beside"])
