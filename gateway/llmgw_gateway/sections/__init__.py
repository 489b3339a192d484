"""The sections of the configuration: what each may say, and what can be wrong with it. `settings.py` joins them."""
