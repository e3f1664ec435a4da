"""Which runs are one method, what it is called, how methods are compared."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from sim.report.methods import config_differences, methods_of
from sim.report.reading import find_runs
from sim.report.statistics import paired_difference
from sim.report.tables import (
    NO_DIFFERENCE,
    Comparison,
    comparisons,
    final_table,
    runs_table,
    without_equal,
)
from tests.run_folders import sweep, table_of, told, write_run


def test_methods_are_named_by_what_differs(tmp_path: Path) -> None:
    def strategy(target: str, **arguments: Any) -> dict[str, Any]:
        return {"_target_": f"strategies.{target}", **arguments}

    def placed(root: str) -> dict[str, Any]:
        return {"root": root, "source": {"_target_": "clients.data.mnist", "root": root}}

    sweep(tmp_path / "a", {0: 0.5, 1: 0.6}, strategy=strategy("x.Dlad", lr=0.1), data=placed("/a"))
    sweep(tmp_path / "b", {0: 0.5}, strategy=strategy("x.Dlad", lr=0.2), data=placed("/b"))
    sweep(
        tmp_path / "c",
        {0: 0.5},
        strategy=strategy("y.Avg", momentum=0.9),
        sim={"threads": 2},
        probes={},
        data=placed("/c"),
    )
    methods = methods_of(find_runs([tmp_path / name for name in "abc"]))
    assert [m.name for m in methods] == ["Dlad, lr=0.1", "Dlad, lr=0.2", "Avg"]
    assert [[run.seed for run in m.runs] for m in methods] == [[0, 1], [0], [0]]
    differences = dict(config_differences(methods))
    assert differences["seed"] == ["0, 1", "0", "0"]
    assert differences["strategy.momentum"] == ["(absent)", "(absent)", "0.9"]
    assert differences["sim.threads"] == ["1", "1", "2"]
    assert "rounds" not in differences


def test_a_method_without_what_others_have_is_named_by_its_absence(tmp_path: Path) -> None:
    sweep(tmp_path / "a", {0: 0.5}, data={"proxy_source": {"_target_": "x.mnist", "root": "/a"}})
    sweep(tmp_path / "b", {0: 0.5}, data={"proxy_source": None})
    methods = methods_of(find_runs([tmp_path / name for name in "ab"]))
    assert [m.name for m in methods] == ["mnist", "proxy_source=null"]


def test_a_strategy_that_has_the_seed_is_one_method_over_all_seeds(tmp_path: Path) -> None:
    """`strategy=averaging` has `seed: ${seed}`; a seed of its own is another thing."""
    for seed in (0, 1):
        write_run(tmp_path / "s" / str(seed), seed, config={"strategy": {"seed": seed}})
    write_run(tmp_path / "s" / "2", 2, config={"strategy": {"seed": 7}})
    methods = methods_of(find_runs([tmp_path / "s"]))
    assert [[run.seed for run in m.runs] for m in methods] == [[0, 1], [2]]
    for seed in (0, 1):
        write_run(tmp_path / "fixed" / str(seed), seed, config={"data": {"source": {"seed": 0}}})
    fixed = methods_of(find_runs([tmp_path / "fixed"]))
    assert [[run.seed for run in m.runs] for m in fixed] == [[0, 1]]


def test_what_is_only_looked_at_makes_no_other_method(tmp_path: Path) -> None:
    for seed, examples in enumerate((64, 256)):
        looked = {"proxy_split": {"probe_examples": examples}, "temperature": 1.0}
        looked |= {"probe_examples": examples}  # its name one version back
        write_run(tmp_path / "s" / str(seed), seed, config={"strategy": looked})
    write_run(tmp_path / "s" / "2", 2, config={"strategy": looked | {"temperature": 3.0}})
    methods = methods_of(find_runs([tmp_path / "s"]))
    assert [m.name for m in methods] == ["temperature=1.0", "temperature=3.0"]
    assert [[run.seed for run in m.runs] for m in methods] == [[0, 1], [2]]


def test_configs_that_differ_in_very_much_are_named_by_their_folders(tmp_path: Path) -> None:
    for name, value in {"a": 0, "b": 1}.items():
        sweep(tmp_path / name, {0: 0.5}, **{f"a_long_name_of_key_{n}": value for n in range(5)})
    both = [tmp_path / "a", tmp_path / "b"]
    assert [m.name for m in methods_of(find_runs(both))] == ["a", "b"]
    keys = ", ".join(f"a_long_name_of_key_{n}=0" for n in range(5))
    assert methods_of(find_runs([tmp_path]))[0].name == keys  # one folder of both


def test_a_seed_that_was_run_twice_counts_once(tmp_path: Path) -> None:
    write_run(tmp_path / "s" / "0", 0, 0.5)
    write_run(tmp_path / "s" / "1", 0, 0.5)
    write_run(tmp_path / "s" / "2", 1, 0.7)
    (method,) = methods_of(find_runs([tmp_path / "s"]))
    assert [run.name for run in method.runs] == ["s/0", "s/2"]
    assert [run.name for run in method.repeats] == ["s/1"]
    assert final_table([method]).rows[0][:3] == ["s", "2", "60.00 ± 14.14"]
    assert "repeats a seed" in runs_table([method]).rows[2][3]


def test_one_method_under_two_names_has_no_difference(tmp_path: Path) -> None:
    """Once as two folders of the same runs, once as two rules that do the same but for noise."""
    rng = np.random.default_rng(5)
    first = dict(enumerate(0.8 + 0.02 * rng.standard_normal(5)))
    noisy = {seed: value + 0.005 * rng.standard_normal() for seed, value in first.items()}
    a, b = sweep(tmp_path / "a", first), sweep(tmp_path / "b", first)
    c = sweep(tmp_path / "c", noisy, rule="other")
    text, twin = told(tmp_path, a, b)
    assert [row[:4] + row[-1:] for row in table_of(twin, "measure")] == [
        ["student", "(b)", "(a)", "5", NO_DIFFERENCE]  # the others could not differ
    ]
    assert text.count(f'<td class="words">{NO_DIFFERENCE}</td>') == 1
    equal = "Equal with every seed: (b) and (a) in best client, mean client, worst client."
    assert (equal in text, equal in twin) == (True, True)
    text, twin = told(tmp_path, a, c)
    row = table_of(twin, "measure")[0]
    assert row[:3] == ["student", "rule=other", "rule=(absent)"]
    assert row[-1] == NO_DIFFERENCE
    assert "td found" not in text
    assert 'class="words found"' not in text


def test_a_planted_difference_of_two_points_is_found(tmp_path: Path) -> None:
    """Differences 1.4, 2.3, 2.5, 1.6, 2.2: deviation 0.474342, t interval 2 +- 0.588973."""
    first = dict(enumerate((0.78, 0.83, 0.80, 0.79, 0.82)))
    apart = (0.014, 0.023, 0.025, 0.016, 0.022)
    better = {seed: value + apart[seed] for seed, value in first.items()}
    a, b = sweep(tmp_path / "a", first, rule="plain"), sweep(tmp_path / "b", better, rule="new")
    text, twin = told(tmp_path, a, b)
    (student,) = [row for row in table_of(twin, "measure") if row[0] == "student"]
    assert student[4] == "+2.00"
    interval, so = (cell.replace("\\", "") for cell in student[6:])
    assert interval == "[+1.41, +2.59]"
    words = re.fullmatch(r"\+2\.00 points \[\+(\d\.\d\d), \+(\d\.\d\d)\]", so)
    assert words is not None
    low, high = map(float, words.groups())
    assert 1.4 <= low <= 1.41  # of the bootstrap, no mean is below the least difference
    assert high == 2.59
    assert text.count('class="words found"') == 1  # the clients are the same


def difference(measure: str, second: str, points: list[float]) -> Comparison:
    found = paired_difference(dict(enumerate(points)), dict.fromkeys(range(len(points)), 0.0))
    return Comparison(measure, "a", second, found)


def test_only_what_is_equal_with_every_seed_is_taken_out() -> None:
    apart = difference("mean client", "b", [10.0] * 3)  # with every seed, and not equal
    few = difference("mean client", "b", [0.0, 0.0])  # too few to say so
    equal = difference("mean client", "c", [0.0] * 3)
    worst = difference("worst client", "c", [0.0] * 3)
    student = difference("student", "b", [0.0] * 3)
    kept, said = without_equal([student, apart, few, equal, worst])
    assert kept == [student, apart, few]
    assert said == "Equal with every seed: a and c in mean client, worst client."
    assert without_equal([apart]) == ([apart], "")
    # Without students that of the mean client is the news.
    kept, said = without_equal([equal, worst])
    assert (kept, said) == ([equal], "Equal with every seed: a and c in worst client.")


def test_a_constant_difference_is_said_without_an_interval(tmp_path: Path) -> None:
    """Student 2 points better with every seed, all else equal; only the noisy third has a line."""
    first = dict(enumerate((0.5, 0.6, 0.75)))
    a = sweep(tmp_path / "a", first, rule="plain")
    b = sweep(tmp_path / "b", {seed: value + 0.02 for seed, value in first.items()}, rule="new")
    text, twin = told(tmp_path, a, b)
    rows = {row[0]: row[4:] for row in table_of(twin, "measure")}
    assert rows["student"] == ["+2.00", "no spread", "no spread", "+2.00 points with every seed"]
    assert [*rows] == ["student"]
    assert "rule=new and rule=plain in best client, mean client, worst client" in text
    assert text.count('class="words found"') == 1
    assert "would be expected to look different by chance" not in text  # none has an interval
    bars = re.findall(r'<svg class="bar".*?</svg>', text)
    assert len(bars) == 1
    assert bars[0].count("<line") == 1  # that of zero
    assert 'x="97.00"' in bars[0]  # the mean's mark: 50 + 48 - 1
    c = sweep(tmp_path / "c", {0: 0.5, 1: 0.58, 2: 0.79}, rule="third")
    text, _ = told(tmp_path, a, b, c)
    assert "Of 2 comparisons with an interval, were all of methods" in text  # c with a and b
    assert "0.1 would be expected" in text


def test_too_few_seeds_are_said_to_be_too_few(tmp_path: Path) -> None:
    a = sweep(tmp_path / "a", {0: 0.5, 1: 0.5, 2: 0.5}, rule="x")
    b = sweep(tmp_path / "b", {1: 0.9, 2: 0.9, 3: 0.9}, rule="y")
    c = sweep(tmp_path / "c", {7: 0.9}, rule="z")
    methods = methods_of(find_runs([a, b, c]))
    words = [one.words for one in comparisons(methods) if one.measure == "student"]
    assert words == [
        "too few seeds for an interval (2 shared, 3 are needed)",
        "no seed shared",
        "no seed shared",
    ]


def test_more_than_six_methods_are_compared_with_the_first(tmp_path: Path) -> None:
    for n in range(7):
        sweep(tmp_path / str(n), {0: 0.5}, rule=n)
    methods = methods_of(find_runs([tmp_path]))
    compared = [one for one in comparisons(methods) if one.measure == "student"]
    assert {one.second for one in compared} == {"rule=0"}
    assert len(compared) == 6
