"""Backend `vm`: run a workload as a QEMU/KVM guest through libvirt."""
