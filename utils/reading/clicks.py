"""How a click in a page of HTML reaches the kernel."""

from __future__ import annotations

import html

OPEN = """latent => { const bridge = {here}.closest(".pts-browser").querySelector(".pts-bridge input");
    bridge.value = latent + " " + Date.now(); bridge.dispatchEvent(new Event("input", {bubbles: true})); }"""
# Keys pressed inside are not for the notebook, which would take Enter and the arrows as commands.
OWN_KEYS = 'data-lm-suppress-shortcuts="true"'


def clickable(content: str, attributes: str = "") -> str:
    """HTML in which a button with data-latent opens that latent's page."""
    script = f'const chip = event.target.closest("[data-latent]"); if (chip) ({OPEN.replace("{here}", "this")})(chip.dataset.latent)'
    return f'<div class="pts" {OWN_KEYS} {attributes} onclick="{html.escape(script)}">{content}</div>'


def message(text: str, kind: str) -> str:
    return f'<div class="pts pts-{kind}" role="status">{html.escape(text)}</div>' if text else ""
