"""The floating-point mode of a thread, from compiled code: src_cy/mode.h says why kernels need their own."""

from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.extending import intrinsic

ON_X86 = binding.get_process_triple().startswith(("x86_64", "i686"))
NEEDED = 0x1F80  # nothing is flushed, roundings go to nearest, nothing traps


def _transfer(builder, direction, slot):
    """Store the control register (``stmxcsr``) or load it (``ldmxcsr``)."""
    pointer = builder.bitcast(slot, ir.IntType(8).as_pointer())
    of = ir.FunctionType(ir.VoidType(), [pointer.type])
    builder.call(cgutils.get_or_insert_function(builder.module, of, f"llvm.x86.sse.{direction}"), [pointer])


@intrinsic
def take_mode(typingctx):
    """Set the mode that kernels need, and return the one before."""

    def codegen(context, builder, sig, args):
        before = ir.IntType(32)(NEEDED)
        if ON_X86:
            slot = cgutils.alloca_once(builder, ir.IntType(32))
            _transfer(builder, "stmxcsr", slot)
            before = builder.load(slot)
            builder.store(ir.IntType(32)(NEEDED), slot)
            _transfer(builder, "ldmxcsr", slot)
        return before

    return types.uint32(), codegen


@intrinsic
def restore_mode(typingctx, mode):
    """Set the mode that `take_mode` returned."""

    def codegen(context, builder, sig, args):
        if ON_X86:
            slot = cgutils.alloca_once(builder, ir.IntType(32))
            builder.store(args[0], slot)
            _transfer(builder, "ldmxcsr", slot)
        return context.get_dummy_value()

    return types.void(types.uint32), codegen
