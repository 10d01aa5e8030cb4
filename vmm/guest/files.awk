# Turns the write_files of our user-data into calls of the shell function write_file.

function text() { # return the text in double quotes of this line
    sub(/^[^"]*"/, "")
    sub(/"$/, "")
    return $0
}

function quoted(word) { # return that text without JSON's escapes, quoted for the shell
    word = text()
    gsub(/\\"/, "\"", word)
    gsub(/\\\\/, "\\", word)
    gsub(/'/, "'\\''", word)
    return "'" word "'"
}

/^- path: / { path = quoted() }
/^  permissions: / { mode = text() }
/^  owner: / { owner = quoted() }
/^  content: / { printf "write_file %s %s %s <<END\n%s\nEND\n", path, mode, owner, text() }
