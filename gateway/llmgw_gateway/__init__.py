"""The central service: authenticates, authorizes, pays for, routes, relays, meters and audits model calls."""
