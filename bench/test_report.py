"""The README says what the saved run says."""

import re

from bench import peers, report, results_files


def test_the_readmes_table_is_the_saved_runs():
    found = report.BLOCK.search(report.README.read_text(encoding="utf-8"))
    assert found, "README.md has lost its speed markers"
    path = found[1]
    run = results_files.load(report.ROOT / path) if path else None
    assert found[0] == report.readme_block(run), "README.md's speed table was edited: make bench-report"


def test_the_page_has_users_own_code():
    run = results_files.saved_runs()[-1]
    run.cells["softmax 1x10 f64 in Cython", 1] = {
        name: {"best": best, "median": best, "GB/s": 1.0}
        for name, best in ((peers.DEFAULT, 60e-9), (results_files.BY_HAND, 120e-9))
    }
    page = report.page(run, {}, None)
    assert page.count("softmax 1x10 f64 in Cython") == 1
    assert re.search(r"in Cython</td><td>60 ns</td><td>120 ns</td><td><span class=.ahead.>2\.00<", page)
