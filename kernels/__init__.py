"""Fused Triton kernels, each beside its plain PyTorch reference. Start at `catalog`.

Hugging Face publishes a distribution of the same name, which transformers imports when it finds one and
whose version it reads from `__version__`; without one it fails with `InvalidVersion: 'N/A'`. Ours stays below
0.9, so that transformers takes it for one too old to use. `tests/test_kernels_name.py` checks both.
"""

__version__ = "0.1.0"
