"""Comparing two results of the speed benchmark by the ratios in them."""

import json

import pytest

from benchmarks.compare import changes, main, ratios


def result(times=6.0, floor=0.35, share=1.2, seconds=1.0):
    """Return a result; `seconds` scales the times of everything, as another machine does."""
    return {
        "machine": {"CPU": "one", "commit": "0a", "transforms": "scipy 1"},
        "tables": {
            "applying": [
                {"PSF": "line", "way": "35 taps", "ns/px": 4.0 * seconds, "taken": "yes"},
                {"PSF": "line", "way": "Fourier", "ns/px": 12.0 * seconds, "taken": ""},
            ],
            "steps": [{"solver": "tv", "PSF": "line", "floor / measured": floor}],
            "beside": [
                {"Mpx": 24, "PSF": "line", "by": "tilepipe", "s per channel": 7.0 * seconds, "times ours": 1.0},
                {"Mpx": 24, "PSF": "line", "by": "other", "s per channel": 7.0 * times * seconds, "times ours": times},
            ],
            "whole": [{"Mpx": 24, "jobs": "all", "seconds": 30.0 * seconds, "whole / restoring": share}],
        },
    }


@pytest.fixture
def compared(tmp_path, monkeypatch, capsys):
    """Compare results as the command does; return its exit code, or message, and what it prints."""

    def compare(*results, tolerance="0.1"):
        files = [tmp_path / f"{at}.json" for at in range(len(results))]
        for file, one in zip(files, results, strict=True):
            file.write_text(json.dumps(one))
        monkeypatch.setattr("sys.argv", ["compare", *map(str, files), "--tolerance", tolerance])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code
        return code, capsys.readouterr().out

    return compare


def test_all_ratios_are_found_and_ours_beside_itself_is_none():
    assert sorted(ratios(result()).values()) == [0.35, 1.2, 3.0, 6.0]


def test_another_machine_changes_no_ratio():
    assert all(change.change == pytest.approx(0) for change in changes(result(), result(seconds=2.5)))


@pytest.mark.parametrize(
    ("worse", "name"),
    [({"times": 5.0}, "times ours"), ({"floor": 0.3}, "floor / measured"), ({"share": 1.4}, "whole / restoring")],
)
def test_a_ratio_worse_by_more_than_the_tolerance_fails(compared, worse, name):
    """More is better of the first two, less of the third."""
    code, printed = compared(result(), result(**worse))
    assert code == 1
    first = printed[printed.index("|---") :].splitlines()[1]
    assert name in first
    assert "| -1" in first
    assert "1 of 4 ratios are worse by more than 10 %" in printed
    assert compared(result(), result(**worse), tolerance="0.5")[0] == 0
    assert compared(result(**worse), result())[0] == 0, "better does not fail"


def test_results_without_a_common_ratio_and_one_file_alone_are_refused(compared):
    other = result()
    other["tables"] = {"steps": [{"solver": "log", "PSF": "disk", "floor / measured": 0.3}]}
    assert "no ratio in common" in compared(result(), other)[0]
    assert "two are needed" in compared(result())[0]
