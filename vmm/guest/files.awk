# The write_files of a canonical user-data, as calls of the shell function write_file.

function text() { # the double-quoted text of this line
    sub(/^[^"]*"/, "")
    sub(/"$/, "")
    return $0
}

function quoted(word) { # as one word of the shell, JSON's escapes undone
    word = text()
    gsub(/\\"/, "\"", word)
    gsub(/\\\\/, "\\", word)
    gsub(/'/, "'\\''", word)
    return "'" word "'"
}

/^- path: / { path = quoted() }
/^  permissions: / { mode = text() }
/^  owner: / { owner = text() }
/^  content: / { printf "write_file %s %s %s <<END\n%s\nEND\n", path, mode, owner, text() }
