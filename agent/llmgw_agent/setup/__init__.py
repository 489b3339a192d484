"""`llmgw setup TOOL`: writes a tool's own configuration, remembers what it wrote, and takes exactly that back."""
