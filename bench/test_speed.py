"""Every op x backend x shape x dtype, with the peers and the floors beside them."""

import warnings
from time import perf_counter

import pytest

from bench import cases, peers

# A call that takes longer is measured this often, in seconds and rounds.
SLOW, ROUNDS_IF_SLOW = 0.5, 1


@pytest.mark.filterwarnings("ignore:Benchmark fixture was not used")  # where the answer is wrong
def test_speed(benchmark, set_threads, cell):
    case, candidate, threads = cell
    set_threads(candidate, threads)
    run = candidate.prepare(case, cases.call(case))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a peer's own
        start = perf_counter()
        result = run()
        slow = perf_counter() - start > SLOW
        if candidate.kind != "floor":
            cases.check(case, candidate.name, candidate.result(result))
        benchmark.group = f"{case}, {threads} threads"
        if slow:
            benchmark.pedantic(run, rounds=ROUNDS_IF_SLOW)
        else:
            benchmark(run)
    benchmark.extra_info |= {
        "case": str(case),
        "candidate": candidate.name,
        "threads": threads,
        "bytes": case.bytes,
    }


@pytest.mark.parametrize("name", peers.PEERS)
def test_peer_is_installed(name):
    if reason := peers.missing(name):
        pytest.skip(f"{name} is not measured: {reason}")


@pytest.mark.parametrize("case", cases.CASES[:1], ids=str)
def test_a_wrong_answer_is_not_timed(case):
    (x,) = cases.call(case).args
    with pytest.raises(cases.WrongAnswer, match="FAIL"):
        cases.check(case, "a plain copy", x)
