"""The clouds behind the gateway: the only files that know how each is called."""
