"""The speed goals, as data: each cell's ratio to the fastest peer, and to what memory allows."""

from typing import NamedTuple

from bench.cases import Case


class Goal(NamedTuple):
    """``peer``: how many times faster than the fastest peer; ``floor``: at most so many times the floor."""

    case: Case
    peer: float
    floor: float | None = None


class BackendGoal(NamedTuple):
    """``backend`` is ``ratio`` times as fast as ``against``: a peer's name, or "best peer"."""

    backend: str
    case: Case
    against: str
    ratio: float


F64, F32 = "float64", "float32"
BIG = (64, 50257)

GOALS = (
    Goal(Case("softmax", (1, 10), F64), 4),
    Goal(Case("softmax", (32, 10), F64), 5),
    Goal(Case("softmax", (1000, 5), F64), 6),
    Goal(Case("softmax", (1000, 5), F32), 6),
    Goal(Case("softmax", (100_000, 10), F32), 3),
    Goal(Case("softmax", (1000, 100), F32), 1.5),
    Goal(Case("softmax", (1000, 1000), F32), 1.5, 1.6),
    Goal(Case("softmax", (1000, 1000), F64), 1.25, 2.5),
    Goal(Case("softmax", BIG, F32), 1.5, 1.7),
    Goal(Case("softmax", (4096, 4096), F32, out=True), 1.8, 1.4),
    Goal(Case("softmax", (1000, 1000), F32, axis=0), 2),
    Goal(Case("log_softmax", (1000, 1000), F32), 1.4),
    Goal(Case("logsumexp", (1000, 1000), F32), 2.5),
    Goal(Case("softmax_vjp", (1000, 5), F64), 4),
    Goal(Case("softmax_vjp", (1000, 1000), F32), 1.05, 1.3),
    Goal(Case("softmax_jacobian", (1000, 5), F64), 5, 2),
    Goal(Case("softmax_jacobian", (1000, 64), F32), 3, 1.3),
    Goal(Case("softmax_jacobian", (100, 1000), F32), 1.4, 1.3),
    Goal(Case("softmax_jacobian", (1000, 5), F64, layout="dense"), 10),
    Goal(Case("cross_entropy_with_grad", (1000, 5), F64), 7),
    Goal(Case("cross_entropy_with_grad", BIG, F32), 4),
)

BACKEND_GOALS = (
    BackendGoal("numba", Case("softmax", (1000, 1000), F32), "torch", 1.15),
    BackendGoal("numba", Case("softmax", (1000, 5), F64), "best peer", 3),
    *(
        BackendGoal("numpy", Case(op, shape, dtype), "scipy", 1)
        for op in ("softmax", "log_softmax", "logsumexp")
        for shape in ((1000, 5), (1000, 100), (1000, 1000))
        for dtype in (F64, F32)
    ),
    BackendGoal("fastsoftmax", GOALS[18].case, "autograd", 500),
)

LARGE = 1_000_000


def required(goal, threads, isa):
    """The goal's ratio to the best peer under other conditions than one thread on the machine as it is."""
    if isa != "native":  # ahead everywhere, clearly so in the large float32 cells
        return 1.2 if goal.case.dtype == F32 and goal.case.size >= LARGE else 1.0
    return goal.peer if threads == 1 else max(1.0, goal.peer * 2 / 3)
