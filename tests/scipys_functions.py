"""A plugin of pytest: SciPy's three functions are those of `fastsoftmax.scipy`, for SciPy's own tests."""

import scipy.special

from fastsoftmax import scipy as ours

try:
    from scipy._lib._array_api import xp_capabilities_table as capabilities
except ImportError:  # before SciPy 1.17
    capabilities = {}

for _name in ours.__all__:
    _theirs, _ours = getattr(scipy.special, _name), getattr(ours, _name)
    if _theirs in capabilities:
        capabilities[_ours] = capabilities[_theirs]
    setattr(scipy.special, _name, _ours)
