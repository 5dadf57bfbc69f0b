"""An op as a list of launches, for one dtype, shape and alignment.

A recipe is made once and then filled in with the pointers and numbers of each call. Where rows are
split over blocks there are two launches, with the segments' sums in a workspace between them.
"""

from dataclasses import dataclass
from functools import lru_cache

from fastsoftmax._cuda.kernels import Spec, cross_entropy, forward, log_products, vjp
from fastsoftmax._cuda.plan import ITEMSIZE, MAX_THREADS, SHARED_MEMORY, Plan, plan

# A workspace holds the sum of weights and its reciprocal, then partial sums, then losses.
SCALE_BYTES = 16


@dataclass(frozen=True, eq=False)
class Launch:
    """One kernel on a grid. Arguments that are names stand for what a call gives.

    Recipes are kept, so a launch is known by its identity: hashing all of it would take microseconds.
    """

    spec: Spec
    grid: int
    block: tuple
    shared: int
    args: tuple


@dataclass(frozen=True)
class Recipe:
    """Launches in order; ``partials`` and ``losses`` are bytes of workspace."""

    launches: tuple
    partials: int = 0
    losses: int = 0

    @property
    def workspace(self):
        """Bytes of workspace, or 0."""
        total = self.partials + self.losses
        needed = total or any("scale" in launch.args for launch in self.launches)
        return SCALE_BYTES + total if needed else 0

    def places(self, workspace):
        """What the names in the launches' arguments stand for in a workspace at this address."""
        partials = workspace + SCALE_BYTES
        return {"scale": workspace, "partials": partials, "loss": partials + self.partials}


@dataclass(frozen=True)
class _Op:
    """The kernels' arguments before the shape: those of each form, and of all but ``partial``.

    ``crowded`` is for the plan.
    """

    module: str
    rows: tuple
    others: tuple
    partials: int
    for_partial: tuple = ()
    crowded: bool = False


_CROSS_ENTROPY = ("labels", "weight", "smoothing", "ignored", "factor", "scale", "loss", "out")
_OPS = {
    "softmax": _Op("forward", ("x",), ("out",), forward.PARTIAL),
    "log_softmax": _Op("forward", ("x",), ("out",), forward.PARTIAL),
    "logsumexp": _Op("forward", ("x",), ("out",), forward.PARTIAL),
    "softmax_jacobian": _Op("jacobian", ("y",), ("out",), 0),
    "log_softmax_jacobian": _Op("jacobian", ("logy",), ("out",), 0),
    "softmax_vjp": _Op("vjp", ("y", "g"), ("out",), vjp.PARTIAL),
    "log_softmax_vjp": _Op("log_products", ("logy", "g"), ("out",), log_products.PARTIAL),
    "log_softmax_jvp": _Op("log_products", ("logy", "t"), ("out",), log_products.PARTIAL),
    "cross_entropy": _Op(
        "cross_entropy", ("x",), _CROSS_ENTROPY, cross_entropy.PARTIAL, _CROSS_ENTROPY[:3], crowded=True
    ),
}


def plan_of(op, storage, canonical, *, vector=True, shared_memory=SHARED_MEMORY):
    """The plan by which ``op`` runs."""
    op = _OPS["cross_entropy" if op.startswith("cross_entropy") else op]
    _, n, inner = canonical
    given = {"crowded": op.crowded, "vector": vector, "shared_memory": shared_memory}
    return plan(len(op.rows), storage, n, inner, **given)


@lru_cache(maxsize=4096)
def rows_recipe(op, storage, canonical, *, vector=True, shared_memory=SHARED_MEMORY):
    """softmax, log_softmax, logsumexp and the products with a vector."""
    plan = plan_of(op, storage, canonical, vector=vector, shared_memory=shared_memory)
    module = _OPS[op].module
    named = (("op", op),) if module != "vjp" else ()
    return _launches(_OPS[op], plan, canonical, named, named if module == "log_products" else ())


@lru_cache(maxsize=4096)
def jacobian_recipe(op, storage, canonical, *, vector=True, shared_memory=SHARED_MEMORY):
    """A batched Jacobian."""
    plan = plan_of(op, storage, canonical, vector=vector, shared_memory=shared_memory)
    m, n, _ = canonical
    grid = plan.blocks((m * n, n, 1))
    spec = Spec("jacobian", "line", plan, (("op", op),))
    args = (*_OPS[op].rows, "out", m * n, n, 1)
    return Recipe((Launch(spec, grid, plan.block, plan.shared_bytes(1), args),))


@lru_cache(maxsize=4096)
def cross_entropy_recipe(
    storage,
    canonical,
    smooth,
    weighted,
    gradient,
    reduction=None,
    every=False,
    *,
    vector=True,
    shared_memory=SHARED_MEMORY,
):
    """The loss of each row; with a ``reduction`` over all of them, from labels on the device.

    Where ``every`` row counts as one, a mean is over their number, which is known, and so is ``factor``.
    """
    plan = plan_of("cross_entropy", storage, canonical, vector=vector, shared_memory=shared_memory)
    mean = reduction == "mean" and not every
    flags = (("smooth", smooth), ("weighted", weighted))
    options = (*flags, ("gradient", gradient), ("mean", mean))
    rows = _launches(_OPS["cross_entropy"], plan, canonical, options, flags)
    if reduction in (None, "none"):
        return rows
    m, n = canonical[0] * canonical[2], canonical[1]
    one_block = Plan(storage, MAX_THREADS, 1, 1, vector=False)
    before = _reduction(
        one_block, "total_weight", (("weighted", weighted),), "labels weight ignored scale", m, n
    )
    divisor = "one" if reduction == "sum" else "rows" if every else "weight"
    after = _reduction(one_block, "total_loss", (("divisor", divisor),), "loss scale total", m)
    launches = (before, *rows.launches, after) if mean else (*rows.launches, after)
    return Recipe(launches, rows.partials, m * ITEMSIZE[plan.arithmetic])


def _reduction(plan, name, options, names, *shape):
    return Launch(Spec("reductions", name, plan, options), 1, plan.block, 0, (*names.split(), *shape))


def _launches(op, plan, canonical, options, partial_options):
    outer, n, inner = canonical
    shape = (outer * inner, n, inner)
    grid, block = plan.blocks(canonical), plan.block

    def launch(name, args, options):
        spec = Spec(op.module, name, plan, options)
        return Launch(spec, grid, block, plan.shared_bytes(len(op.rows)), (*args, *shape))

    if not plan.split:
        return Recipe((launch("whole", (*op.rows, *op.others), options),))
    first = launch("partial", (*op.rows, *op.for_partial, "partials"), partial_options)
    second = launch("combined", (*op.rows, "partials", *op.others), options)
    numbers = outer * inner * plan.segments(n) * op.partials
    return Recipe((first, second), partials=numbers * ITEMSIZE[plan.arithmetic])
