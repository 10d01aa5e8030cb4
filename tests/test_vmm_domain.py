"""The domain XML: as in the golden files, and right in the eyes of libvirt's schema and parser."""

import pytest
from support.golden import compare

from vmctl.programs import run
from vmm import domain

MACHINE = domain.Machine(
    name="web",
    uuid=domain.machine_uuid("0123abcd"),
    accelerator="tcg",
    emulator="/usr/bin/qemu-system-x86_64",
    vcpus=1,
    memory_bytes=256 * 1024**2,
    kernel="/images/vmlinuz",
    initrd="/cache/initrd",
    cmdline="console=ttyS0 quiet",
    layers=("/images/layers/aa.erofs",),
    disk="/instances/web/disk.img",
    seed="/instances/web/seed.iso",
    console="/instances/web/console.log",
    outputs=(("org.vmctl.marks", "/instances/web/marks"), ("org.vmctl.stdout", "/instances/web/stdout.log")),
    control=("org.vmctl.control", "/run/0123abcd/control"),
)
MACHINES = {
    "tcg-no-network": MACHINE,
    "kvm-network": MACHINE._replace(accelerator="kvm", nics=(domain.Nic("v0123abcd", "52:54:00:4d:00:02"),), vcpus=2),
    "attached": MACHINE._replace(stdin=("org.vmctl.stdin", "/run/0123abcd/stdin")),
    "system": MACHINE._replace(modules="/cache/modules/6.1.erofs"),
    "volumes": MACHINE._replace(volumes=tuple((f"volume{number}", f"/run/0/volume{number}") for number in (0, 1))),
    "dax": MACHINE._replace(
        layers=("/images/layers/aa.erofs", "/images/l,b.erofs"), dax=((1, 32 << 20), (0, 16 << 20))
    ),
    "disk": MACHINE._replace(kernel="", initrd="", cmdline="", layers=()),
    "layers-and-odd-names": MACHINE._replace(
        name='a"b<c>&d', layers=tuple(f"/images/layers/{number} &.erofs" for number in range(3))
    ),
}


@pytest.fixture(params=MACHINES)
def machine(request):
    return request.param, MACHINES[request.param]


def test_golden(machine):
    name, value = machine
    compare(f"domain/{name}.xml", domain.domain_xml(value))


def test_schema(machine, tmp_path):
    path = tmp_path / "domain.xml"
    path.write_text(domain.domain_xml(machine[1]))
    assert run(["virt-xml-validate", str(path), "domain"], check=False)[0] == 0


def test_libvirt_parses_it(machine):
    from vmm.connection import libvirt  # it sets LIBVIRT_LOG_OUTPUTS before it loads the library

    connection = libvirt.open("test:///default")
    try:
        parsed = connection.defineXML(domain.domain_xml(machine[1]).replace("type='kvm'", "type='test'"))
        assert (parsed.name(), parsed.UUIDString()) == (machine[1].name, machine[1].uuid)
    finally:
        connection.close()


@pytest.mark.parametrize(("cpus", "vcpus"), [(None, 1), (0.25, 1), (1, 1), (1.5, 2), (4.0, 4)])
def test_fractions_of_a_cpu_are_rounded_up(cpus, vcpus):
    assert domain.vcpus(cpus) == vcpus


def test_memory_is_rounded_up_to_whole_kib():
    assert '<memory unit="KiB">65537</memory>' in domain.domain_xml(MACHINE._replace(memory_bytes=64 * 1024**2 + 1))


def test_disk_names_go_on_after_z():
    names = [domain._disk_name(number) for number in (0, 25, 26, 27, 701, 702)]
    assert names == ["vda", "vdz", "vdaa", "vdab", "vdzz", "vdaaa"]


def addresses(layers):
    from xml.etree import ElementTree

    machine = MACHINE._replace(
        layers=tuple(f"/{number}" for number in range(layers)), nics=(domain.Nic("v0", "52:54::"),)
    )
    places = ElementTree.fromstring(domain.domain_xml(machine)).findall("devices//address[@type='pci']")
    return [(place.get("slot"), place.get("function")) for place in places], domain.domain_xml(machine)


@pytest.mark.parametrize("layers", [1, 22, 23, 127])
def test_every_device_has_a_place_on_the_bus(layers):
    places, xml = addresses(layers)
    assert len(set(places)) == len(places) == layers + 6
    assert all(0x02 <= int(slot, 16) < 0x1F for slot, _ in places)
    # if each disk had its own interrupt vectors, none would be left for the last ones
    assert ("virtio-blk-pci.vectors=0" in xml) == any(function != "0x0" for _, function in places) == (layers > 22)


def test_uuid_is_the_same_at_each_start_and_differs_between_instances():
    assert domain.machine_uuid("00000001") == domain.machine_uuid("00000001") != domain.machine_uuid("00000002")
