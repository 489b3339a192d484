"""Prices, periods, estimates, the one decision, and the transactions that hold and settle money."""
