"""One file a technique. Each defines the kernels of `fastsoftmax.registry.OPS`, in that order.

A kernel gets canonical arrays, checked and of one dtype, and writes into its last arguments:
``x``, ``y``, ``logy``, ``g``, ``t``, ``b`` and ``out`` are ``(outer, n, inner)``, ``labels`` and ``loss``
``(outer, inner)``; the Jacobian's ``out`` is ``(outer, n, n)`` for ``inner == 1``. A label of -1 is
ignored; ``weight`` is ``(n,)`` or None; rows of ``b`` sum to 0 where ``ridge`` is. No array is empty,
``out`` may be an input, and all arrays are C-contiguous but for the blocks of ``inner`` that
`fastsoftmax/_threads.py` cuts. A kernel never raises, knows nothing of axes and may not look beyond a row.

Of ragged rows arrays are ``(1, n, 1)``, entries ``ptr[k]`` to ``ptr[k + 1]`` being row ``k``; some are empty.
One result a row is ``(1, rows)``. A backend without these ops is complete: "cuda" is.
"""
