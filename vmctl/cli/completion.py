"""vmctl completion."""

from __future__ import annotations

import argparse

from vmctl.cli import VERBS

EXAMPLE = "source <(vmctl completion bash)"

# Instance names come from `vmctl ps -aq`, image names from `vmctl image ls -q`, flags from `--help`. Verbs and the
# actions of `image`, `bench`, `volume` and `network` are in the script; all other words complete to files.
_BASH = """_vmctl() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} verb=${{COMP_WORDS[1]}}
    case $COMP_CWORD:$verb in 2:*) ;; *:image | *:bench | *:volume | *:network) verb="$verb ${{COMP_WORDS[2]}}" ;; esac
    case $COMP_CWORD:$verb:$word in
        1:*) COMPREPLY=($(compgen -W "{verbs}" -- "$word")) ;;
        2:bench:--*) COMPREPLY=($(compgen -W "--self-test --peers --images \
            $(vmctl bench run --help 2>/dev/null | grep -oE -- '--[a-z-]+')" -- "$word")) ;;
        *:*:--*) COMPREPLY=($(compgen -W "$(vmctl $verb --help 2>/dev/null | grep -oE -- '--[a-z-]+')" -- "$word")) ;;
        2:image:*) COMPREPLY=($(compgen -W "{actions}" -- "$word")) ;;
        2:volume:*) COMPREPLY=($(compgen -W "{of_volumes}" -- "$word")) ;;
        *:"volume "*:*) COMPREPLY=($(compgen -W "$(vmctl volume ls -q 2>/dev/null)" -- "$word")) ;;
        2:network:*) COMPREPLY=($(compgen -W "{networks}" -- "$word")) ;;
        *:"network "*:*) COMPREPLY=($(compgen -W "$(vmctl network ls -q 2>/dev/null)" -- "$word")) ;;
        2:bench:*) COMPREPLY=($(compgen -W "{measures}" -- "$word") $(compgen -f -- "$word")) ;;
        *:up:*|*:"bench "*|*:spec:*|*:"image build":*|*:"image import":*) COMPREPLY=($(compgen -f -- "$word")) ;;
        *:cp:*) COMPREPLY=($(compgen -f -- "$word")
            $(compgen -S : -W "$(vmctl ps -aq 2>/dev/null)" -- "$word")) ;;
        *:compare:*) COMPREPLY=($(compgen -f -- "$word")
            $(compgen -W "$(vmctl image ls -q 2>/dev/null)" -- "$word")) ;;
        *:run:*|*:create:*|*:"image "*:*) COMPREPLY=($(compgen -W "$(vmctl image ls -q 2>/dev/null)" -- "$word")) ;;
        *) COMPREPLY=($(compgen -W "$(vmctl ps -aq 2>/dev/null)" -- "$word")) ;;
    esac
}}
complete -o filenames -F _vmctl vmctl
"""
_ZSH = "autoload -U +X bashcompinit && bashcompinit\n" + _BASH
_FISH = """complete -c vmctl -f
complete -c vmctl -n __fish_use_subcommand -a "{verbs}"
complete -c vmctl -n "__fish_seen_subcommand_from image" -a "{actions} (vmctl image ls -q)"
complete -c vmctl -n "__fish_seen_subcommand_from network" -a "{networks} (vmctl network ls -q)"
complete -c vmctl -n "__fish_seen_subcommand_from bench" -a "{measures}"
complete -c vmctl -n "__fish_seen_subcommand_from volume" -a "{of_volumes} (vmctl volume ls -q)"
complete -c vmctl -n "__fish_seen_subcommand_from run create compare" -a "(vmctl image ls -q)"
complete -c vmctl -n "not __fish_use_subcommand" \\
    -n "not __fish_seen_subcommand_from up bench spec image run create compare volume network" -a "(vmctl ps -aq)"
complete -c vmctl -n "__fish_seen_subcommand_from up bench spec import build create compare cp" -F
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="shell that reads the script")


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    from vmctl.cli import bench, image, network, volume

    template = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}[args.shell]
    words = {"verbs": VERBS, "actions": image.ACTIONS, "measures": bench.ACTIONS, "of_volumes": volume.ACTIONS}
    words["networks"] = network.ACTIONS
    print(template.format(**{name: " ".join(found) for name, found in words.items()}), end="")
    return 0
