"""vmctl completion."""

from __future__ import annotations

import argparse

EXAMPLE = "source <(vmctl completion bash)"
WORDS = "words"  # what the scripts ask for at each press of the key

# The shell lists files where candidates contain a slash alone. Bash splits words at `:` and `=`, so what is before the
# last of them is cut off from candidates.
_BASH = """_vmctl() {
    local IFS=$'\\n' line=${COMP_LINE:0:${COMP_POINT:-0}} word all files=$'\\n/\\n'
    local -a words=("${COMP_WORDS[@]:0:COMP_CWORD+1}")
    if [[ -n $line ]]; then
        IFS=$' \\t\\n' read -ra words <<< "$line"
        [[ $line == *[[:space:]] ]] && words+=("")
    fi
    word=${words[-1]}
    all=$'\\n'$(vmctl completion words -- "${words[@]:1}" 2>/dev/null)$'\\n'
    COMPREPLY=($(compgen -W "${all/"$files"/$'\\n'}" -- "$word"))
    [[ ${COMPREPLY[*]} == *: ]] && compopt -o nospace 2>/dev/null
    if [[ $all == *"$files"* ]]; then
        compopt -o filenames 2>/dev/null
        COMPREPLY+=($(compgen -f -- "$word"))
    fi
    [[ $word == *[:=]* && $COMP_WORDBREAKS == *:* ]] && COMPREPLY=("${COMPREPLY[@]#"${word%"${word##*[:=]}"}"}")
    return 0
}
complete -F _vmctl vmctl
"""
_ZSH = """#compdef vmctl
_vmctl() {
    local -a found
    found=("${(@f)$(vmctl completion words -- "${(@)words[2,CURRENT-1]}" "$PREFIX" 2>/dev/null)}")
    compadd -S '' -- ${(M)found:#?*:}
    compadd -- ${${found:#*:}:#/}
    if (( ${found[(Ie)/]} )); then _files; fi
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _vmctl vmctl
"""
_FISH = """function __vmctl_words
    set -l words (commandline -opc) (commandline -ct)
    vmctl completion words -- $words[2..-1] 2>/dev/null
end
complete -c vmctl -f -a "(__vmctl_words | string match -v /)"
complete -c vmctl -n "__vmctl_words | string match -q /" -F
"""
SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "shell",
        metavar="SHELL",
        choices=(*SCRIPTS, WORDS),
        help="bash, zsh or fish: shell that reads the script; words: print what can come next",
    )
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="-- WORD", help="the command line so far")


def run(args: argparse.Namespace) -> int:
    """Print the script, or the candidates that it asks for."""
    if args.shell != WORDS:
        print(SCRIPTS[args.shell], end="")
        return 0
    from vmctl.cli import completing

    for word in completing.candidates(args.words[args.words[:1] == ["--"] :]):
        print(word)
    return 0
