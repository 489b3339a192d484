"""Every endpoint of the Admin API, once."""

from __future__ import annotations

from typing import Final

from llmgw_gateway.admin import budgets, keys, people, reports, requests, roles

ROUTES: Final = (*roles.ROUTES, *people.ROUTES, *budgets.ROUTES, *keys.ROUTES, *reports.ROUTES, *requests.ROUTES)
