"""What an agent learns from the gateway's address alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmgw_wire.headers import TOKEN_PATH
from llmgw_wire.messages import ACCESS_TOKEN_TYPE, ID_TOKEN_TYPE, Bootstrap, IssuerOffer

if TYPE_CHECKING:
    from llmgw_gateway.sections.exchanging import Issuer
    from llmgw_gateway.settings import Settings


def bootstrap(settings: Settings) -> Bootstrap:
    """The document at `/.well-known/llmgw`."""
    return Bootstrap(
        gateway=settings.server.public_url,
        token_endpoint=settings.server.public_url + TOKEN_PATH,
        audience=settings.tokens.audience,
        issuers=tuple(_offer(issuer, settings.tokens.enrol_seconds) for issuer in settings.issuers),
        minimum_agent_version=settings.tokens.minimum_agent_version,
        binds_tokens=True,
        require_pop=settings.tokens.require_pop,
    )


def _offer(issuer: Issuer, enrol_seconds: int) -> IssuerOffer:
    return IssuerOffer(
        issuer=issuer.issuer,
        client_id=issuer.client_id,
        kind=issuer.kind,
        scopes=issuer.scopes,
        subject_token_type=ID_TOKEN_TYPE if issuer.wants_id_token else ACCESS_TOKEN_TYPE,
        redirect_host=issuer.redirect_host,
        response_mode=issuer.response_mode,
        resource=issuer.resource,
        client_secret=issuer.published_client_secret,
        # The person needs some of the time to answer. Entra documents no max_age, and MSAL insists on its answer.
        max_age=enrol_seconds // 2 if issuer.kind == "oidc" else 0,
    )
