"""The speed goals, as data: each cell's ratio to the fastest peer, and to what memory allows."""

from typing import NamedTuple

from bench.cases import Case


class Goal(NamedTuple):
    """``peer``: how many times faster than the fastest peer; ``floor``: at most so many times the floor."""

    case: Case
    peer: float = 1
    floor: float | None = None


class BackendGoal(NamedTuple):
    """``backend`` is ``ratio`` times as fast as ``against``: a peer's name, or "best peer"."""

    backend: str
    case: Case
    against: str
    ratio: float


F64, F32, F16, BF16 = "float64", "float32", "float16", "bfloat16"
BIG = (64, 50257)

GOALS = (
    Goal(Case("softmax", (1, 10), F64), 5),
    Goal(Case("softmax", (32, 10), F64), 6),
    Goal(Case("softmax", (1000, 5), F64), 8),
    Goal(Case("softmax", (1000, 5), F32), 10),
    Goal(Case("softmax", (100_000, 10), F32), 3.5),
    Goal(Case("softmax", (1000, 100), F32), 2),
    Goal(Case("softmax", (1000, 1000), F32), 2, 1.4),
    Goal(Case("softmax", (1000, 1000), F64), 2, 1.8),
    Goal(Case("softmax", BIG, F32), floor=1.3),
    Goal(Case("softmax", (4096, 4096), F32, out=True), floor=1.15),
    Goal(Case("softmax", (1000, 1000), F32, axis=0), 2),
    Goal(Case("log_softmax", (1000, 1000), F32), 2),
    Goal(Case("logsumexp", (1000, 1000), F32), 3),
    Goal(Case("softmax_vjp", (1000, 5), F64), 6),
    Goal(Case("softmax_vjp", (1000, 1000), F32), 1.25, 1.25),
    Goal(Case("softmax_jacobian", (1000, 5), F64), 6, 1.5),
    Goal(Case("softmax_jacobian", (1000, 64), F32), floor=0.9),
    Goal(Case("softmax_jacobian", (100, 1000), F32), floor=0.9),
    Goal(Case("softmax_jacobian", (1000, 5), F64, layout="dense"), floor=1.1),
    Goal(Case("cross_entropy_with_grad", (1000, 5), F64), 8),
    Goal(Case("cross_entropy_with_grad", BIG, F32), floor=1.15),
)

LOSS_PATHS = ("int32 labels", "weight=", "ignore_index=", "reduction='none'", "reduction='sum'")

SIDE_GOALS = (
    Goal(Case("softmax", (1000, 1000), F16), 1.5),
    Goal(Case("softmax", (1000, 10), F16), 3),
    Goal(Case("softmax", (1000, 1000), BF16), 1.5),
    Goal(Case("softmax", BIG, BF16), 1.5),
    Goal(Case("softmax", (1000, 1000), F32, path="where="), 2),
    Goal(Case("softmax", (1000, 10), F32, path="where="), 4),
    Goal(Case("softmax", (32, 10), F64, path="where="), 3),
    Goal(Case("softmax", (1000, 100), F32, path="rows apart"), 1.5),
    Goal(Case("softmax", (32, 10), F64, path="rows apart"), 3),
    Goal(Case("softmax", (1000, 1000), F32, path="Fortran order"), 1.5),
    Goal(Case("softmax", (100_000, 3), F32, path="Fortran order"), 3),
    Goal(Case("softmax", (32, 10), F64, path="num_threads=1"), 2.5),
    Goal(Case("softmax", (32, 10), F64, path="backend='cython'"), 2.5),
    Goal(Case("softmax", (32, 10), F64, path="use_backend"), 2.5),
    *(Goal(Case("cross_entropy", (32, 10), F32, path=path), 2.5) for path in LOSS_PATHS),
    *(Goal(Case("cross_entropy_with_grad", (32, 10), F32, path=path), 12) for path in LOSS_PATHS),
    *(
        Goal(Case("cross_entropy_with_grad", (1000, 5), F64, path=path), 6)
        for path in (*LOSS_PATHS, "label_smoothing=")
    ),
    Goal(Case("softmax_vjp", (32, 10), F64, path="g apart"), 2.5),
    Goal(Case("softmax_vjp", (1000, 1000), F32, axis=0), 1.5),
    Goal(Case("softmax", (32, 16, 16), F32, axis=(1, 2)), 2),
    Goal(Case("softmax", (3,), F64, path="a list"), 1.5),
)

BACKEND_GOALS = (
    BackendGoal("numba", Case("softmax", (1000, 1000), F32), "torch", 1.15),
    BackendGoal("numba", Case("softmax", (1000, 5), F64), "best peer", 3),
    BackendGoal("numba", Case("softmax", (32, 10), F64), "best peer", 1),
    BackendGoal("numpy", Case("softmax", (32, 10), F64), "best peer", 0.5),
    *(
        BackendGoal("numpy", Case(op, shape, dtype), "scipy", 0.5)
        for op in ("softmax", "log_softmax", "logsumexp")
        for shape in ((1000, 5), (1000, 100), (1000, 1000), (1_000_000, 1), (10_000, 3))
        for dtype in (F64, F32)
    ),
)

# With half the lanes of AVX-512 arithmetic is the bound: 0.57 ns an entry for the exp in float32.
FLOOR_ON_AVX2 = 1.3


def required(goal, threads):
    """The goal's ratio to the best peer: two thirds of it with two threads, and never behind."""
    return goal.peer if threads == 1 else max(1.0, goal.peer * 2 / 3)


def required_floor(goal, threads, level):
    """At most so many times the floor on one thread of a CPU level; None where nothing is required."""
    if goal.floor is None or threads > 1:
        return None
    return goal.floor if level == "x86-64-v4" else goal.floor * FLOOR_ON_AVX2
