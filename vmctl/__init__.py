"""vmctl: run the same workload as a QEMU/KVM guest, as a namespace container or as a plain process."""

__version__ = "0.2.0"
