"""Whether `exec` and `shell` can come into a guest that boots a system: through an sshd that only vmctl configures."""

from __future__ import annotations

from vmctl import console
from vmctl.instances.instance import Instance
from vmctl.net import connect
from vmctl.spec.units import format_seconds

# of vmm/guest/system/vmctl-ssh.socket: above the ports that Linux takes for outgoing connections
PORT = 61022
SSH_PORT = "ssh_port"  # key of the state, if it is not the usual port
ANSWER_S = 60.0  # an emulated guest needs 2 s, and ten times that if many run at once
_MOST = 300  # characters of what a guest writes that are shown


def warning(inst: Instance, marks: list[str]) -> str:
    """Return why nobody can come in, "" if one can; asks the guest's sshd. A guest without a network has no way in."""
    if inst.state.address is None:
        return ""
    reasons = [line.partition(" ")[2] for line in marks if line.startswith("locked ")]
    reason = reasons[-1] if reasons else _refusal(inst.state.address)
    if not reason:
        return ""
    return f"nobody can come into the guest {inst.name} with `exec` or `shell`: {console.visible(reason)[:_MOST]}"


def _refusal(address: str) -> str:
    """Return why the sshd at an address does not answer, "" if it does."""
    try:
        with connect.connect(address, PORT, ANSWER_S) as connection:
            connection.settimeout(ANSWER_S)
            greeting = connection.recv(4)
    except TimeoutError:
        return f"port {PORT} gave no answer in {format_seconds(ANSWER_S)}: a packet filter in the guest must let it in"
    except OSError as error:
        return f"port {PORT} does not answer: {error.strerror or error}"
    return "" if greeting == b"SSH-" else f"port {PORT} is not answered by sshd; its log in the guest may show why"
