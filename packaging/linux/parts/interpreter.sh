# The newest Python that the package has libraries for, the distribution's own first, becomes what $1 leads to.
choose_python() {
  for name in python3 python3.14 python3.13 python3.12 python3.11; do
    if "/usr/bin/$name" -I -S -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))' 2>/dev/null; then
      ln -sfn "/usr/bin/$name" "$1"
      return 0
    fi
  done
  echo "llmgw: there is no Python 3.11 to 3.14 in /usr/bin. Install one, then this package again." >&2
  return 1
}
