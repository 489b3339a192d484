"""What is recorded about calls: the audit trail and the metrics. Never a prompt, never a credential."""
