forget_compiled() {
  [ ! -d "$1/lib" ] || find "$1/lib" -depth -type d -name __pycache__ -exec rm -rf {} +
}
