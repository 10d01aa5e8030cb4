"""vmctl completion."""

from __future__ import annotations

import argparse

from vmctl.cli import VERBS

# Names of instances complete from `vmctl ps -aq`; the verbs are known here; the rest are files.
_BASH = """_vmctl() {{
    local word=${{COMP_WORDS[COMP_CWORD]}}
    case $COMP_CWORD:${{COMP_WORDS[1]}}:$word in
        1:*) COMPREPLY=($(compgen -W "{verbs}" -- "$word")) ;;
        *:*:--*) COMPREPLY=($(compgen -W "$(vmctl "${{COMP_WORDS[1]}}" --help 2>/dev/null |
            grep -oE -- '--[a-z-]+')" -- "$word")) ;;
        *:up:*|*:bench:*|*:spec:*) COMPREPLY=($(compgen -f -- "$word")) ;;
        *) COMPREPLY=($(compgen -W "$(vmctl ps -aq 2>/dev/null)" -- "$word")) ;;
    esac
}}
complete -o filenames -F _vmctl vmctl
"""
_ZSH = "autoload -U +X bashcompinit && bashcompinit\n" + _BASH
_FISH = """complete -c vmctl -f
complete -c vmctl -n __fish_use_subcommand -a "{verbs}"
complete -c vmctl -n "not __fish_use_subcommand; and not __fish_seen_subcommand_from up bench spec" -a "(vmctl ps -aq)"
complete -c vmctl -n "__fish_seen_subcommand_from up bench spec" -F
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))


def run(args: argparse.Namespace) -> int:
    """Print the script; for instance `source <(vmctl completion bash)`."""
    template = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}[args.shell]
    print(template.format(verbs=" ".join(VERBS)), end="")
    return 0
