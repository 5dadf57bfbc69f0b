"""The README says what the saved run says."""

from bench import report, results_files


def test_the_readmes_table_is_the_saved_runs():
    found = report.BLOCK.search(report.README.read_text(encoding="utf-8"))
    assert found, "README.md has lost its speed markers"
    path = found[1]
    run = results_files.load(report.ROOT / path) if path else None
    assert found[0] == report.readme_block(run), "README.md's speed table was edited: make bench-report"
