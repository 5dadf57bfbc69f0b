"""The CUDA backend's parts. Nothing here imports a CUDA package before a kernel is asked for.

From the bottom up:

* `plan`: which threads do a row, by dtype and length;
* `kernels`: the kernels, as functions of a *target*; `arithmetic`, `teams` and `held` are what they share;
* `target`: what kernels are written in (thread indices, accesses, fma), for numba-cuda; the tests have
  one for an interpreter;
* `recipes`: an op as a list of launches;
* `compiler`: a kernel as machine code, cached; `driver`: launches it;
* `interop`: torch, CuPy and other device arrays;
* `operations` and `calls`: the public operations on those, to which `door` leads;
  ``fastsoftmax/backends/cuda.py`` takes NumPy arrays.
"""
