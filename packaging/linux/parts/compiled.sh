# Compiled here, because users cannot write here: without it each start would compile the modules again.
compile() {
  python="$1/bin/python3"
  version="$("$python" -I -S -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
  "$python" -I -S -m compileall -q "$1/lib/any" "$1/lib/python$version" ||
    echo "llmgw: $1 could not be compiled for Python $version; it starts more slowly" >&2
}
