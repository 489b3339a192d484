# Compiled here, because users cannot write here: without it each start of the agent would compile its modules again.
compile() {
  python=/opt/llmgw/bin/python3
  version="$("$python" -I -S -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
  "$python" -I -S -m compileall -q /opt/llmgw/lib/any "/opt/llmgw/lib/python$version" ||
    echo "llmgw: the agent could not be compiled for Python $version; it starts more slowly" >&2
}
