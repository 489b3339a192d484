"""llmgw on the laptop: one sign-in at the company's provider, short-lived gateway tokens for every tool."""

__version__ = "0.1.0"
