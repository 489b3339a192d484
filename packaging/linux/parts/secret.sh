# What all replicas of a gateway share: made once, and never in place of one that is there.
make_secret() {
  secret=/etc/llmgw-gateway/cluster.secret
  if [ ! -e "$secret" ]; then
    (umask 077 && head -c 32 /dev/urandom | base64 > "$secret.new" && mv "$secret.new" "$secret")
  fi
  chown llmgw-gateway: "$secret"
}
