"""Which cells run: all of them, the goals' (``--quick``), or small ones when benchmarks are disabled."""

import sys
import time

import pytest
from threadpoolctl import threadpool_limits

import fastsoftmax as fs
from bench import cases, goals_table, machine, peers

# Scripts: they hold no tests, and need packages that the tests do without.
collect_ignore = ["gate.py", "goals.py", "gpu.py", "plots.py", "sweep.py"]

# With fewer elements no candidate starts a second thread, or should.
ENOUGH_FOR_THREADS = 64 * 1024
# A quick run leaves out what takes longer to check than to time.
QUICK_BYTES = 150_000_000


def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true", help="only the cells that have goals, up to 150 MB")


def pytest_configure(config):
    if _timing(config):
        config.pluginmanager.register(Progress(config), "bench-progress")


def pytest_generate_tests(metafunc):
    if "cell" in metafunc.fixturenames:
        cells = list(_cells(metafunc.config))
        metafunc.parametrize("cell", cells, ids=[f"{case} {c.name} {n}t" for case, c, n in cells])


def pytest_benchmark_update_machine_info(config, machine_info):
    machine_info.update(machine.describe())


def pytest_benchmark_update_json(config, benchmarks, output_json):
    for entry in output_json["benchmarks"]:
        entry["params"] = None  # they are in extra_info, legibly
        entry["stats"].pop("data", None)


def _timing(config):
    return config.getoption("benchmark_enable") or config.getoption("benchmark_only")


def _cells(config):
    """(case, candidate, threads), the candidates of one case next to each other."""
    candidates = [peers.default(), *peers.backends(), *peers.peers(), *peers.floors()]
    for case in _cases(config):
        for threads in _thread_counts(config, case):
            for candidate in candidates:
                if candidate.has(case):
                    yield case, candidate, threads


def _cases(config):
    every = *cases.CASES, *(goal.case for goal in goals_table.SIDE_GOALS)
    if not _timing(config):
        return dict.fromkeys(case.small() for case in every)
    if not config.getoption("quick"):
        return dict.fromkeys(every)
    return [goal.case for goal in goals_table.GOALS if goal.case.bytes <= QUICK_BYTES]


def _thread_counts(config, case):
    full = _timing(config) and not config.getoption("quick")
    every = fs.get_num_threads()
    return (1, every) if full and every > 1 and case.size >= ENOUGH_FOR_THREADS else (1,)


class Progress:
    """One line that says what is being measured, how far the run is, and how long it will still take."""

    def __init__(self, config):
        self.config = config
        self.done = 0

    def pytest_collection_finish(self, session):
        self.total, self.start = len(session.items), time.monotonic()

    def pytest_report_teststatus(self, report):
        return (report.outcome, "", "") if report.passed and report.when == "call" else None

    def pytest_runtest_logstart(self, nodeid):
        elapsed = time.monotonic() - self.start
        left = f"{elapsed / self.done * (self.total - self.done):4.0f} s left" if self.done else ""
        name = nodeid.split("::")[-1]
        line = f"[{self.done + 1:>4}/{self.total}] {left}  {name}"
        if sys.stdout.isatty():
            self._terminal().rewrite(line[: self._terminal()._tw.fullwidth - 1], erase=True)
        elif self.done % 25 == 0:
            self._terminal().write_line(line)
        self.done += 1

    def _terminal(self):
        return self.config.pluginmanager.get_plugin("terminalreporter")


@pytest.fixture
def set_threads(request):
    """Sets a candidate's thread count and LAPACK's; timed it gets as many CPUs: JAX knows no other limit.

    Two threads of OpenBLAS that share a CPU wait for each other: seconds in place of milliseconds.
    """
    every, cpus = fs.get_num_threads(), machine.cpus() if _timing(request.config) else []
    candidates = []

    def set_until_end(candidate, n):
        candidates.append(candidate)
        candidate.set_threads(n)
        threadpool_limits(n, "blas")
        machine.stay_on(cpus[:n])

    yield set_until_end
    machine.stay_on(cpus)
    for candidate in candidates:
        candidate.set_threads(every)
    threadpool_limits(every, "blas")
