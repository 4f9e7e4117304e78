"""The command sweep: what it starts, what it refuses, how it goes on."""

from __future__ import annotations

import json
from collections import deque

import pytest

from benchmarks.__main__ import main
from benchmarks.names import UsageError
from benchmarks.recipes import RECIPES
from benchmarks.recipes.find import find_recipes
from benchmarks.sweep import command
from benchmarks.sweep.baselines import baseline_jobs, choose_baselines
from benchmarks.sweep.drive import sweep
from benchmarks.sweep.executor import Ending, last_words
from benchmarks.sweep.jobs import Job, Plan
from benchmarks.sweep.on_ray import run_in_worker
from benchmarks.sweep.words import folder_name, read_seeds, split_values

FAILED = Ending(code=1, reason="RuntimeError: out of memory")


def plan(out, *recipes, **options):
    """Jobs of some recipes."""
    options = {"overrides": {}, "fixed": {}, **options}
    return Plan(recipes=recipes, out=out, **options).jobs()


def write(job, n, of=5):
    """Leave a run.json as after some experiences."""
    record = {
        "recipe": job.folder.recipe,
        "experiences_finished": n,
        "experiences": of,
        "finished": n == of,
        "metrics": {"final_accuracy": 0.5},
    }
    job.folder.path.mkdir(parents=True, exist_ok=True)
    (job.folder.path / "run.json").write_text(json.dumps(record))


class Scripted:
    """Ends jobs, one at a time, as a list for each says; otherwise well."""

    has_room = True

    def __init__(self, **endings):
        self.endings = {name: deque(each) for name, each in endings.items()}
        self.started = []
        self.active = []

    def __enter__(self):
        self.entered = True

    def __exit__(self, *_):
        self.left = True

    def start(self, job):
        if job.after is not None:
            assert job.after.folder.is_finished
        self.started.append(job.title)
        self.active.append(job)

    def running(self):
        return self.active

    def ended(self):
        if not self.active:
            return {}
        job = self.active.pop(0)
        coming = self.endings.get(job.folder.recipe)
        ending = coming.popleft() if coming else Ending(code=0)
        write(job, 5 if ending.code == 0 else 2)
        return {job: ending}


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr("benchmarks.sweep.drive.LOOK", 0.0)


def test_jobs_are_recipes_times_overrides_times_seeds_each_in_its_folder(tmp_path):
    overrides = {"lr": ["0.1", "0.05"], "milestones": ["[]", "[3, 5]"]}
    jobs = plan(tmp_path, "naive", "ewc", seeds=[0, 2], overrides=overrides)
    folders = [job.folder.path.relative_to(tmp_path).as_posix() for job in jobs]
    assert folders == [
        f"lr={lr},milestones={milestones}/{recipe}/{seed}"
        for seed in (0, 2)
        for recipe in ("naive", "ewc")
        for lr in ("0.1", "0.05")
        for milestones in ("_", "3_5")
    ]
    assert jobs[3].options["lr"] == 0.05 and jobs[3].options["milestones"] == (3, 5)
    assert jobs[3].title == "naive 0 lr=0.05,milestones=3_5"


def test_a_job_is_the_command_that_a_person_would_type(tmp_path):
    [job] = plan(tmp_path, "naive", seeds=[3], fixed={"lr": "0.1"}, common=["--smoke"])
    assert job.command == [
        *("run", "naive", "--lr=0.1", "--smoke"),
        *("--seed", "3", "--out", str(tmp_path), "--resume"),
    ]
    assert job.folder.path == tmp_path / "naive" / "3"
    assert job.log == job.folder.path / "output.txt"


def test_class_orders_follow_the_seeds(tmp_path):
    jobs = plan(tmp_path, "naive", seeds=[4, 5], class_orders=True)
    assert [job.options["stream_seed"] for job in jobs] == [4, 5]
    assert all(f"--stream_seed={j.folder.seed}" in j.command for j in jobs)


def test_patterns_stand_for_recipes_and_for_the_rows_of_one():
    names = [recipe.name for recipe in find_recipes(["ew?", "naive", "naive"])]
    assert names == ["ewc", "naive"]
    base = next(recipe.base for recipe in RECIPES.values() if recipe.is_row)
    rows = find_recipes([f"{base}/*"])
    assert rows == [r for r in RECIPES.values() if r.is_row and r.base == base]
    with pytest.raises(UsageError, match="unknown recipe naiv; did you mean naive"):
        find_recipes(["naiv"])


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0.1,0.05,0.1", ["0.1", "0.05"]),
        ("[0],[2]", ["[0]", "[2]"]),
        ("[1,2], null", ["[1,2]", "null"]),
        ("'a,b',c", ["a,b", "c"]),
        ("1e-3", ["1e-3"]),
    ],
)
def test_values_are_split_as_yaml_does(text, values):
    assert split_values(text) == values


def test_folder_names_are_safe():
    assert folder_name({"weights": "../a b/c.pt"}) == "weights=.._a_b_c.pt"
    assert read_seeds("2,0-1,1") == [2, 0, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: recipes"),
        (["nothing*"], "unknown recipe nothing*"),
        (["naive", "--seeds", "3-1"], "--seeds is 3-1; wanted for instance 0-4"),
        (["naive", "--seeds", "-1"], "seeds"),
        (["naive", "--seed", "1"], "unknown option --seed; did you mean --seeds?"),
        (["naive", "--override", "lr"], "--override is lr; wanted KEY=VALUE"),
        (["naive", "--override", "lr=["], "wanted YAML between commas"),
        (["naive", "--override", "lr=1", "--set", "lr=2"], "lr is given twice"),
        (["naive", "--set", "lr=1", "--set", "lr=2"], "--set lr is given twice"),
        (["naive", "--set", "lrr=1"], "naive: unknown option --lrr; did you mean --lr"),
        (["naive", "--override", "lr=0.1,-1"], "naive: --lr is -1"),
        (["naive", "ewc", "--override", "ewc_lambda=1"], "naive: unknown option"),
        (["naive", "--set", "seed=3"], "seed is no option of naive alone"),
        (["naive", "--set", "stream_seed=3", "--class-orders"], "given twice"),
        (["naive", "--override", "milestones=[1],[1 ]"], "is the folder of 2 runs"),
        (["naive", "--metrics", "timings"], "did you mean timing?"),
        (["naive", "--jobs", "0"], "--jobs is 0; wanted a whole number >= 1 or null"),
        (["naive", "--out", ""], "--out is ''"),
        (["naive", "--seeds", "0-999999999"], "wanted at most 10000 seeds"),
        (["naive", "--lr", "0.1"], "of a recipe; wanted --set lr=0.1"),
        (["naive", "--train-epochs=1"], "of a recipe; wanted --set train_epochs=1"),
        (["naive", "--task-labels", "--smoke"], "wanted --set task_labels=true"),
        (["naive", "--jobs", "1", "--gpus", "1"], "--gpus is 1; wanted Ray"),
        (["naive", "--jobs", "1", "--address", "auto"], "wanted one of them"),
        (["naive", "--baselines", "lucir_digits"], "does not apply to naive 0"),
    ],
)
def test_wrong_sweep_is_one_line_before_any_work(
    arguments, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", *arguments]) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith("error: ") and err.count("\n") == 1
    assert message in err
    assert not list(tmp_path.iterdir())


def test_folder_of_other_options_is_refused_and_not_called_finished(tmp_path):
    [job] = plan(tmp_path, "naive", common=["--smoke"])
    [asked] = plan(tmp_path, "naive")
    write(job, 5)
    from benchmarks.runs.parser import parse

    smoke = parse(RECIPES["naive"], ["--smoke", "--threads", "3"])
    job.folder.config.write_text(smoke.to_yaml())
    assert plan(tmp_path, "naive", common=["--smoke"])[0].folder.is_finished
    with pytest.raises(UsageError, match="naive/0 holds a run with smoke True, but Fa"):
        plan(tmp_path, "naive")
    assert asked.folder == job.folder


def test_only_what_is_missing_is_started(tmp_path, capsys):
    jobs = plan(tmp_path, "naive", "ewc", seeds=[0, 1])
    write(jobs[0], 5)
    write(jobs[1], 3)
    executor = Scripted()
    assert sweep(jobs, executor, retries=0, out=tmp_path) == 0
    assert executor.started == ["ewc 0", "naive 1", "ewc 1"] and executor.left
    assert "3 finished, 1 were finished already, 0 failed" in capsys.readouterr().out
    executor = Scripted()
    assert sweep(jobs, executor, retries=0, out=tmp_path) == 0
    assert not executor.started and not hasattr(executor, "entered")
    out = capsys.readouterr().out
    assert "0 finished, 4 were finished already, 0 failed" in out
    assert f"python -m benchmarks table {tmp_path}" in out


def test_a_failed_run_is_tried_again_so_often_and_no_more(tmp_path, capsys):
    jobs = plan(tmp_path, "naive", "ewc")
    executor = Scripted(naive=[FAILED, FAILED], ewc=[FAILED] * 3)
    assert sweep(jobs, executor, retries=2, out=tmp_path) == 1
    assert sorted(executor.started) == ["ewc 0"] * 3 + ["naive 0"] * 3
    out = capsys.readouterr().out
    assert f"{FAILED.reason}; trying again after experience 2" in out
    assert "1 finished, 0 were finished already, 1 failed" in out
    assert f"  ewc 0: {FAILED.reason}\n    {jobs[1].log}\n" in out


def test_a_wrong_command_is_not_tried_again(tmp_path):
    executor = Scripted(naive=[Ending(code=2, reason="error: no data")])
    jobs = plan(tmp_path, "naive")
    assert sweep(jobs, executor, retries=2, out=tmp_path) == 1
    assert executor.started == ["naive 0"]


def test_one_run_is_counted_as_one(tmp_path, capsys):
    sweep(plan(tmp_path, "naive"), Scripted(), retries=0, out=tmp_path)
    assert capsys.readouterr().out.startswith("1 run, ")


def test_baselines_follow_their_run_into_a_folder_beside_it(tmp_path, capsys):
    jobs = plan(tmp_path, "lucir_digits", "bdr_digits")
    for job in list(jobs):
        jobs += baseline_jobs(job, ["naive", "lwf"], ["--threads=1"])
    assert jobs[2].command == [
        *("run", "naive", "--like", str(jobs[0].folder.path), "--threads=1"),
        *("--seed", "0", "--out", str(tmp_path / "lucir_digits.baselines"), "--resume"),
    ]
    executor = Scripted(bdr_digits=[FAILED])
    assert sweep(jobs, executor, retries=0, out=tmp_path) == 1
    assert executor.started[2:] == [
        "naive like lucir_digits 0",
        "lwf like lucir_digits 0",
    ]
    assert (tmp_path / "lucir_digits.baselines" / "lwf" / "0" / "run.json").exists()
    out = capsys.readouterr().out
    assert "lwf like bdr_digits 0: not started, as bdr_digits 0 failed" in out


def test_all_baselines_that_apply_are_chosen_but_the_run_itself(tmp_path):
    [job] = plan(tmp_path, "naive", fixed={"task_labels": "true"})
    chosen = choose_baselines([], job)
    assert {"replay", "ewc"} <= set(chosen) and not {"naive", "lwf"} & set(chosen)
    assert choose_baselines(["ewc"], job) == ["ewc"]


def test_options_of_every_run_reach_each_and_threads_are_the_cpus(
    tmp_path, monkeypatch
):
    seen = {}
    monkeypatch.setattr(
        "benchmarks.sweep.drive.sweep",
        lambda jobs, executor, **rest: seen.update(jobs=jobs, on=str(executor)) or 0,
    )
    options = ["--metrics", "timing", "task_recognition", "--seeds", "0-1"]
    options += [
        "--note",
        "not CIFAR",
        "--cpus",
        "2",
        "--jobs",
        "3",
        "--baselines",
        "ewc",
    ]
    assert main(["sweep", "naive", *options, "--out", str(tmp_path)]) == 0
    first, _, third, _ = seen["jobs"]
    assert first.command[2:7] == [
        *("--threads=2", "--metrics", "timing", "task_recognition", "--note=not CIFAR")
    ]
    assert third.after is first and "--threads=2" in third.command
    assert seen["on"] == "3 at once on this machine"


def test_without_ray_runs_come_one_after_the_other(monkeypatch, capsys):
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    values = {"jobs": None, "address": None, "cpus": 1, "gpus": 0.0, "out": "x"}
    executor = command._choose_executor(values)
    assert str(executor) == "one after the other on this machine (Ray is not installed)"
    with pytest.raises(UsageError, match=r"wanted the extra sweep: pip install"):
        command._choose_executor({**values, "address": "auto"})


def test_a_machine_that_does_not_share_the_folder_runs_nothing(tmp_path):
    log = tmp_path / "naive" / "output.txt"
    with pytest.raises(FileNotFoundError, match="does not share"):
        run_in_worker(["list"], log, tmp_path, str(tmp_path / "token"), 0.0)
    assert not log.exists()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("Traceback:\n  File\nRuntimeError: bad\n\n", "RuntimeError: bad"),
        (
            "error: full; resume with\n  python -m benchmarks run\n",
            "error: full; resume with",
        ),
        ("$ python -m benchmarks run\n", "no word of why"),
        (None, "no word of why"),
    ],
)
def test_the_reason_of_a_failure_is_the_last_thing_said(said, reason, tmp_path):
    [job] = plan(tmp_path, "naive")
    if said is not None:
        job.log.parent.mkdir(parents=True)
        job.log.write_text(said)
    assert isinstance(job, Job) and last_words(job) == reason
