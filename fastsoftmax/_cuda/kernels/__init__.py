"""The kernels, each a function of a target and a plan: ``build(spec, target)``.

A row's kernel has up to three forms: ``whole`` does rows that one team holds; for longer ones ``partial``
reduces each segment to a few numbers, and ``combined`` takes those of all segments and writes.
All numbers that a kernel needs of its row are sums and maxima over the row's entries.
"""

from dataclasses import dataclass, field
from importlib import import_module

from fastsoftmax._cuda.plan import HALF_THREADS, Plan


@dataclass(frozen=True)
class Spec:
    """A kernel to compile: ``name`` of ``module``, for one plan, with constant ``options``."""

    module: str
    name: str
    plan: Plan
    options: tuple = field(default=())

    def build(self, make_target):
        """The kernel as a function, of the arguments that ``signature`` lists."""
        module = import_module(f"{__name__}.{self.module}")
        return getattr(module, self.name)(make_target(self.plan), self.plan, **dict(self.options))

    @property
    def resident(self):
        """Blocks that an SM has to hold: one of two computes while the other's accesses are under way.

        Half of its registers are not enough for a loss in float64.
        """
        enough = self.module != "cross_entropy" or self.plan.arithmetic == "float32"
        return 2 if self.plan.shared and self.plan.threads == HALF_THREADS and enough else 1

    @property
    def signature(self):
        """One letter an argument; see `fastsoftmax._cuda.target`."""
        return SIGNATURES[self.module, self.name]


# x: pointer to stored entries; f: to numbers of the arithmetic's dtype; d: to float64; l: to int64 labels;
# i: int64; s: float64.
SIGNATURES = {
    ("forward", "whole"): "xxiii",
    ("forward", "partial"): "xfiii",
    ("forward", "combined"): "xfxiii",
    ("vjp", "whole"): "xxxiii",
    ("vjp", "partial"): "xxfiii",
    ("vjp", "combined"): "xxfxiii",
    ("log_products", "whole"): "xxxiii",
    ("log_products", "partial"): "xxfiii",
    ("log_products", "combined"): "xxfxiii",
    ("jacobian", "line"): "xxiii",
    ("cross_entropy", "whole"): "xlfsisdfxiii",
    ("cross_entropy", "partial"): "xlfsfiii",
    ("cross_entropy", "combined"): "xflfsisdfxiii",
    ("reductions", "total_weight"): "lfidii",
    ("reductions", "total_loss"): "fdxi",
}
