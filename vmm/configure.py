"""From an instance to its seed, for each way a guest can boot."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

from images.store.image import Image, data_folders, provided
from vmctl.instances.folder import Home
from vmctl.net import Link, hosts, name_servers
from vmctl.spec.workload import DEFAULT_PIDS, SECRETS, File, FileMode, Tmpfs, Workload, depth
from vmm import boot, files, keys, seed


def keys_of(home: Home) -> seed.Identity:
    """Return the keys of an instance; they are created if it has none."""
    client, host = keys.load_or_make(files.client_key(home)), keys.load_or_make(files.host_key(home))
    return seed.Identity(client.public, host.private, host.public)


def seed_of(work: Workload, home: Home, image: Image, links: Sequence[Link], identity: seed.Identity) -> seed.Seed:
    """Return the guest's configuration with these keys. Raises SpecError if the user's user-data is invalid."""
    addresses = [
        seed.Address(link.inside, link.mac, link.address, link.prefix, link.gateway, link.resolver, link.search)
        for link in links
    ]
    kind = boot.kind(image, work)
    direct, hostname = kind == boot.DIRECT, work.hostname or home.name
    first = links[0].address if links else None
    given = provided(work, hostname, first, name_servers(links), hosts(links)) if kind != boot.DISK else ()
    return seed.Seed(
        user_data=(_direct if direct else _system)(work, image, identity, _renamed(given)),
        meta_data=seed.meta_data(f"vmctl-{home.id}", hostname, _mounts(work, home), work.shm_size_bytes, work.sysctls),
        network_config=seed.network_config(addresses),
        vendor_data="" if direct else _vendor_data(),
    )


def _mounts(work: Workload, home: Home) -> list[Tmpfs | seed.Share]:
    """Return volumes and folders in memory in the order of their mounts."""
    found: list[Tmpfs | seed.Share] = [*work.tmpfs]
    if work.secrets:
        found.append(Tmpfs(SECRETS, mode=FileMode(0o755), noexec=True))
    if work.volumes:
        from vmm import volumes

        found += volumes.shares(work, home)
    return sorted(found, key=lambda one: depth(one.target))


def pids(work: Workload, image: Image) -> int | None:
    """Return the limit for the processes of the workload, which the guest enforces; None if it has no command."""
    return (work.resources.pids or DEFAULT_PIDS) if boot.main_process(image, work) else None


def _renamed(given: Sequence[File]) -> list[seed.SeedFile]:
    """Return the files that hide those of the image, in the folder in which the guest's scripts expect them."""
    return [seed.SeedFile(f"{seed.HERE}/{posixpath.basename(file.path)}", file.content.encode()) for file in given]


def _direct(work: Workload, image: Image, identity: seed.Identity, given: Sequence[seed.SeedFile]) -> str:
    found = [*given, *_files(work)]
    if (number := pids(work, image)) is not None:
        found.append(seed.limits_file(number))
    if not work.env_file:
        found.append(seed.workload_script(_words(work, image) or "", data_folders(image)))
    return seed.user_data(identity, found)


def secrets(work: Workload, image: Image) -> bytes:
    """Return the secret files of a guest for its init, in the form of user-data: they are not in the seed.

    With variables from files, the script with the command and its environment is one of them. Raises SpecError.
    """
    from vmctl.keeping import held

    values, main = held.read(work), boot.main_process(image, work)
    owner = (main and main.user) or "root:root"
    found = [seed.SeedFile(f"{SECRETS}/{one.name}", values.files[one.name], one.mode, owner) for one in work.secrets]
    if words := work.env_file and _words(held.with_variables(work, values), image):
        found.append(seed.workload_script(words, data_folders(image)))
    return seed.write_files(found).encode()


def _system(work: Workload, image: Image, identity: seed.Identity, given: Sequence[seed.SeedFile]) -> str:
    """Return the user-data of a system, whose own cloud-init writes /etc/hostname; see guest/system/start."""
    from vmm import system, userdata  # they import email and yaml, which a guest of a direct boot does not need

    given = [file for file in given if file.path.endswith(("/hosts", "/resolv.conf"))]
    added = userdata.load(work.vm.cloud_init) if work.vm.cloud_init else ""
    words = _words(work, image)
    written = words if words and not work.env_file else ""
    command = system.Command(written, pids(work, image), data_folders(image)) if words else None
    return system.user_data(identity, [*given, *_files(work)], command, added)


def _vendor_data() -> str:
    from vmm import system

    return system.VENDOR_DATA


def _files(work: Workload) -> list[seed.SeedFile]:
    return [seed.SeedFile(file.path, file.data(), file.mode) for file in work.files]


def _words(work: Workload, image: Image) -> str | None:
    """Return the arguments of `launch` for the workload, or None if it has no command."""
    main = boot.main_process(image, work)
    return seed.workload_words(main.argv, main.env, main.workdir, main.user) if main else None
