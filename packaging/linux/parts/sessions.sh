# systemctl --user ARGUMENTS, for every user whose systemd runs now. Others get what is new with their next session.
in_sessions() {
  [ -d /run/systemd/system ] || return 0
  for runtime in /run/user/*; do
    [ -S "$runtime/systemd/private" ] || continue
    user="$(id -nu "${runtime##*/}" 2>/dev/null)" || continue
    runuser -u "$user" -- env "XDG_RUNTIME_DIR=$runtime" systemctl --user --quiet "$@" || true
  done
}
