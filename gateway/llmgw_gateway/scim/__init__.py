"""SCIM 2.0 (RFC 7643, RFC 7644): the company's directory says who there is, in which teams, and who has left."""
