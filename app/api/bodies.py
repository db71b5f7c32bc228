"""What each endpoint is sent, for the handlers that read their bodies themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.api.admin.credentials import Callback
from app.api.admin.servers import Acceptance, ChangedServer, NewServer
from app.api.workers import PolicyChange
from app.dialects.openai_responses.desk import ChangedConversation, Compact, CountTokens, NewConversation, NewItems
from app.dialects.openai_responses.prompts import PromptBody
from app.mcp.rules import TenantPolicy
from app.mcp.secrets import Given
from app.routing.admin import WorkerChange, WorkerSpec

BODIES: Mapping[tuple[str, str], Any] = {
    ("post", "/v1/conversations"): NewConversation,
    ("post", "/v1/conversations/{conversation_id}"): ChangedConversation,
    ("post", "/v1/conversations/{conversation_id}/items"): NewItems,
    ("post", "/v1/prompts"): PromptBody,
    ("post", "/v1/prompts/{prompt_id}/versions"): PromptBody,
    ("post", "/v1/responses/input_tokens"): CountTokens,
    ("post", "/v1/responses/compact"): Compact,
    ("post", "/v1/mcp/credentials/sign-in"): Callback,
    ("put", "/v1/mcp/credentials/{label}"): Given,
    ("post", "/admin/v1/mcp/servers"): NewServer,
    ("put", "/admin/v1/mcp/servers/{label}"): ChangedServer,
    ("post", "/admin/v1/mcp/servers/{label}/tools/accept"): Acceptance,
    ("put", "/admin/v1/mcp/servers/{label}/credentials/{whose}"): Given,
    ("put", "/admin/v1/mcp/policy"): TenantPolicy,
    ("post", "/workers"): WorkerSpec,
    ("put", "/workers/{name}"): WorkerSpec,
    ("patch", "/workers/{name}"): WorkerChange,
    ("put", "/routing/policy"): PolicyChange,
}
