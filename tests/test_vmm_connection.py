"""The connection to a libvirt daemon."""

import pytest

from vmm.connection import user_of_qemu

CAPABILITIES = """<capabilities><host><cpu/>
<secmodel><model>none</model><doi>0</doi></secmodel>
<secmodel><model>dac</model><doi>0</doi>
<baselabel type='kvm'>{0}</baselabel><baselabel type='qemu'>{0}</baselabel></secmodel>
</host></capabilities>"""


@pytest.mark.parametrize(("label", "user"), [("+0:+0", ""), ("+64055:+995", "+64055:+995"), ("+0:+995", "+0:+995")])
def test_the_user_of_a_daemon_s_qemu(label, user):
    assert user_of_qemu(CAPABILITIES.format(label)) == user


def test_a_daemon_without_users():
    assert user_of_qemu("<capabilities><host><secmodel><model>none</model></secmodel></host></capabilities>") == ""
