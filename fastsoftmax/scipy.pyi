"""SciPy's own types, as scipy-stubs has them: the signatures are the same."""

from scipy.special import log_softmax, logsumexp, softmax

__all__ = ("log_softmax", "logsumexp", "softmax")
