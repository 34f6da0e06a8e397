"""How fast the kernels are beside what else computes the same. Start at `measure`; each kernel has its module."""
