"""The contract between agent and gateway: paths, headers, messages, error codes. Standard library only.

It lies beside the gateway because the gateway serves it and has to stay compatible with older agents in the
field: whoever changes an endpoint sees the contract next to it.
"""
