forget_compiled() {
  [ ! -d /opt/llmgw/lib ] || find /opt/llmgw/lib -depth -type d -name __pycache__ -exec rm -rf {} +
}
