"""What the agent does otherwise on Windows. Only `llmgw_agent.system` chooses these modules."""
