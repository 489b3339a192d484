"""Who is signed in: how a person signs in, and how the sign-in stays fresh."""
