"""A start that is not ready in time: the error contains what the probe has seen."""

import pytest
from support.commands import free_port, vmctl

from vmctl.instances import instance


@pytest.mark.parametrize(
    ("command", "probe", "seen"),
    [
        ("sleep 1000", "tcp: {port}", "nothing listens on its port {port}"),
        ("mkdir -p /e && exec httpd -f -p {port} -h /e", "http: {port}/none", "port {port} answers with status 404"),
        (
            "while :; do echo no | nc -l -p {port}; done",
            "http: {port}/",
            "port {port} answers something else than HTTP",
        ),
        ("sleep 1000", "log: never", "its output does not match ready.log"),
        ("sleep 1000", "exec: [sh, -c, exit 3]", "the command of ready.exec ended with code 3"),
    ],
)
def test_what_the_probe_has_seen(own_root, tmp_path, command, probe, seen):
    port = free_port()
    path = tmp_path / "late.yaml"
    path.write_text(
        f"image: tiny\ncommand: [sh, -c, '{command.format(port=port)}']\n"
        f"ready: {{{probe.format(port=port)}, timeout: {6 if 'exec' in probe else 2}s}}\n"
    )
    result = vmctl("up", str(path))
    assert result.code == 124
    assert f"; {seen.format(port=port)}" in result.err
    assert instance.names() == []
