"""Stands in for SGLang's kernels, of which PyPI has those for GPUs alone: a CPU goes by PyTorch.

SGLang imports some of them by name on a CPU too, and calls none for a plain model.
"""


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)

    def absent(*_, **__):
        raise NotImplementedError(f"sgl_kernel.{name}: no kernel for CPUs is installed")

    return absent
