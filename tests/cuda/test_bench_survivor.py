"""The GPU bench where jobs fail: each row appears, nothing ends the run, and all is on disk at any moment."""

import json
import subprocess
import sys
import time

from bench import survivor
from tests.cuda import planted_jobs

FOREVER = float("inf")


def run(tmp_path, jobs, until=FOREVER, patience=60):
    record = survivor.Record(tmp_path / "rows" / "gpu.jsonl")
    survivor.run(jobs, planted_jobs.is_usable, record, until, patience)
    lines = record.path.read_text().splitlines()
    assert [json.loads(line) for line in lines] == record.rows
    return record.rows


def test_every_job_has_a_row(tmp_path):
    rows = run(tmp_path, planted_jobs.jobs)
    assert [row["job"] for row in rows] == [
        "good",
        "good",
        "wrong",
        "an error",
        "an error",
        "an illegal address",
        "after it",
        "a crash",
        "after that",
    ]
    errors = {row["job"]: row["error"] for row in rows if "error" in row}
    assert errors == {
        "an error": "ValueError: no such thing",
        "an illegal address": "RuntimeError: CUDA_ERROR_ILLEGAL_ADDRESS",
        "a crash": "the process ended with 7",
    }
    assert rows[2]["ok"] is False
    first, second = (row["process"] for row in rows if "process" in row)
    assert first != second


def test_what_never_returns_is_given_up(tmp_path):
    rows = run(tmp_path, planted_jobs.endless, patience=10)
    assert rows[1:] == [{"job": "endless", "error": "no answer in 10 s"}, {"job": "after it", "ok": True}]


def test_the_clock(tmp_path):
    """What has no time left is said to be skipped, in the middle of a job too."""
    assert run(tmp_path, planted_jobs.endless, until=time.time()) == [
        {"job": name, "skipped": "no time left"} for name in ("good", "endless", "after it")
    ]
    rows = run(tmp_path / "again", planted_jobs.endless, until=time.time() + 10)
    assert [row.get("skipped") for row in rows][-2:] == ["no time left"] * 2


def test_rows_are_on_disk_when_the_run_is_killed(tmp_path):
    path = tmp_path / "gpu.jsonl"
    program = (
        "import sys, pathlib; from bench import survivor; from tests.cuda import planted_jobs as p;"
        "survivor.run(p.endless, p.is_usable, survivor.Record(pathlib.Path(sys.argv[1])), float('inf'))"
    )
    command = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        printed = process.stdout.readline()
        process.kill()
    assert path.read_bytes() == printed
