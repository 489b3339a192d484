"""Who is calling: sign-ins in, gateway tokens out, tokens back in."""
