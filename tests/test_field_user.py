"""What users run into, as an ordinary user: what an image leaves to the runtime, user-data, disks that are damaged."""

import json
import os

import pytest
from support.ordinary_user import OrdinaryUser

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def user():
    with OrdinaryUser() as user:
        user.give_image()
        user.give_kernel()
        yield user
        user.vmctl("prune", "-f")


@pytest.mark.parametrize("mode", ["container", "vm"])
def test_what_an_image_leaves_to_the_runtime(user, mode):
    name = f"given-{mode}"
    user.ok("up", "--mode", mode, user.write(f"{name}.yaml", "image: tiny\ncommand: [sleep, '1000']\n"))
    address = json.loads(user.ok("inspect", name))[0]["address"]
    assert user.ok("exec", name, "--", "hostname", "-i").split() == [address]
    hosts = user.ok("exec", name, "--", "cat", "/etc/hosts").splitlines()
    assert [line.split() for line in hosts] == [
        ["127.0.0.1", "localhost"],
        ["::1", "localhost", "ip6-localhost", "ip6-loopback"],
        [address, name],
    ]
    seen = user.ok(
        "exec", name, "--", "sh", "-c", "cat /etc/hostname; stat -c %a /tmp; echo x >>/etc/hosts; tail -1 /etc/hosts"
    )
    assert seen == f"{name}\n1777\nx\n"
    if mode == "container":  # the disk of a guest is mounted by root only
        assert user.ok("diff", name) == ""
    user.ok("down", name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("## template: jinja\n#cloud-config\nusers:\n  - name: only\n", ""),
        ("\ufeff#cloud-config\nruncmd:\n", ""),
        ("#cloud-config\nusers: root\n", ""),
        ("#cloud-config\nruncmd: [\n", "user.ud is not YAML: line 3"),
    ],
)
def test_user_data(user, text, message):
    user.write("user.ud", text)
    path = user.write("data.yaml", "image: tiny\ncommand: [a]\nvm: {cloud_init: user.ud, boot: system}\n")
    said = user.vmctl("spec", "check", "--mode", "vm", path)
    assert ("user.ud" in said.out) == bool(message), said
    assert message in said.out


def test_disks(user):
    whole, cut = os.path.join(user.home, "whole.qcow2"), os.path.join(user.home, "cut.qcow2")
    script = (
        "mkdir r; head -c 12000000 /dev/urandom >r/data; mke2fs -q -F -t ext4 -d r raw 32M;"
        f" qemu-img convert -O qcow2 raw {whole}; head -c 9000000 {whole} >{cut}; qemu-img convert -O vdi raw disk.vdi"
    )
    assert user.run("sh", "-c", script).code == 0
    for words in ((), ("--as-layer",)):
        said = user.refused("image", "import", *words, cut, "--name", "cut")
        assert "cut" in said
    said = user.vmctl("image", "import", whole, "--name", "whole")
    assert said.code == 0, said
    assert "warning" in said.err  # no guest can boot from it
    user.ok("image", "import", os.path.join(user.home, "disk.vdi"), "--name", "vdi")
    user.ok("image", "rm", "vdi")
    user.ok("image", "rm", "whole")


@pytest.mark.parametrize("mode", ["container", "host", "vm"])
def test_impossible_wishes(user, mode):
    path = user.write("many.yaml", "image: tiny\nname: many\ncommand: [sleep, '1']\nresources: {cpus: 64}\n")
    said = user.vmctl("spec", "check", "--mode", mode, path)
    assert "/sys/fs/cgroup" in said.out, said  # the hint describes how to be allowed to
    path = user.write("late.yaml", "image: tiny\nname: late\ncommand: [nope]\n")
    assert user.vmctl("up", "--mode", mode, path).code == 127
