"""The page for people: the OpenAPI document as one HTML file without scripts, fonts or anything from elsewhere.

Pure: a document in, bytes out. Reads at phone width, in the dark, and on a box without a way to the internet.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

Json = Mapping[str, Any]

SECURITY_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"
)
"""For the answer that carries the page: nothing in it may load or run anything."""

BOUNDS: Final = {
    "minimum": "from {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "to {}",
    "exclusiveMaximum": "less than {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
}
STYLE: Final = """
:root{color-scheme:light dark;--ink:#1c2430;--soft:#5b6675;--paper:#fff;--shade:#f3f5f8;--line:#dde2e9;--link:#0b62c4;
--get:#0b6bcb;--post:#13794a;--put:#96580a;--patch:#7b46b8;--delete:#b8322a}
@media(prefers-color-scheme:dark){:root{--ink:#dfe5ec;--soft:#98a4b3;--paper:#12161c;--shade:#1b212a;--line:#2e3742;
--link:#6cb0ff;--get:#6cb0ff;--post:#58c792;--put:#e0a45a;--patch:#bd97ec;--delete:#f0877f}}
*{box-sizing:border-box}
html{scroll-behavior:smooth;-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main,header,footer{max-width:60rem;margin:auto;padding:0 1rem}
header{padding-top:1.5rem}
h1{margin:0;font-size:1.7rem}
h1 small{font-size:1rem;font-weight:400;color:var(--soft)}
h2{margin:2.5rem 0 .6rem;font-size:1.25rem}
h4{margin:1.1rem 0 .3rem;font-size:.95rem;color:var(--soft)}
a{color:var(--link)}
nav{display:flex;flex-wrap:wrap;gap:.3rem 1rem;margin:1rem 0}
code,pre{font:.86em/1.45 ui-monospace,monospace}
code{overflow-wrap:anywhere}
pre{background:var(--shade);border-radius:6px;padding:.7rem;overflow-x:auto;margin:.3rem 0}
details{border:1px solid var(--line);border-radius:8px;margin:.5rem 0;background:var(--paper)}
details[open]>summary{border-bottom:1px solid var(--line)}
summary{cursor:pointer;padding:.55rem .7rem;display:flex;flex-wrap:wrap;gap:.1rem .6rem;align-items:baseline;list-style:none}
summary::-webkit-details-marker{display:none}
summary:hover{background:var(--shade);border-radius:8px}
summary span{color:var(--soft)}
.body{padding:.2rem .8rem .9rem}
.method{font:700 .78rem ui-monospace,monospace;min-width:3.9rem}
.GET{color:var(--get)}.POST{color:var(--post)}.PUT{color:var(--put)}.PATCH{color:var(--patch)}.DELETE{color:var(--delete)}
dl{margin:0;display:grid;grid-template-columns:minmax(8rem,max-content) 1fr;gap:.25rem 1rem}
dt{overflow-wrap:anywhere}dd{margin:0;overflow-wrap:anywhere}
dd small,dt small{color:var(--soft)}
footer{padding:2rem 1rem 3rem;color:var(--soft)}
@media(max-width:34rem){dl{grid-template-columns:1fr;gap:0}dd{margin:0 0 .5rem .8rem}}
"""


def page(document: Json) -> bytes:
    """Return the page that shows a document of :mod:`edgegc.api.document`."""
    return "".join(_page(document)).encode()


def _page(document: Json) -> Iterator[str]:
    info = document["info"]
    yield "<!doctype html>\n<html lang=en><meta charset=utf-8>"
    yield "<meta name=viewport content='width=device-width,initial-scale=1'>"
    yield f"<title>{html.escape(info['title'])} API</title><style>{STYLE}</style>"
    yield f"<header><h1>{html.escape(info['title'])} API <small>{html.escape(info['version'])}</small></h1>"
    yield _prose(info["description"])
    tags = [tag["name"] for tag in document["tags"]]
    yield "<nav aria-label=Chapters>"
    for name in [*tags, "Who may", "Errors", "Bodies"]:
        yield f"<a href='#{_anchor(name)}'>{html.escape(name)}</a>"
    yield "<a href=openapi.json>openapi.json</a></nav></header><main>"
    for name in tags:
        yield _heading(name)
        for path, methods in document["paths"].items():
            for method, found in methods.items():
                if name in found["tags"]:
                    yield from _operation(method.upper(), path, found, document)
    yield _heading("Who may") + "<p>Send <code>Authorization: Bearer &lt;token&gt;</code>.</p><dl>"
    for scheme in document["components"]["securitySchemes"].values():
        yield f"<dt><code>{html.escape(scheme['bearerFormat'])}</code><dd>{_inline(scheme['description'])}"
    yield "</dl>" + _heading("Errors")
    for found in document["components"]["responses"].values():
        ((media, content),) = found["content"].items()
        shown = content["example"]
        yield f"<details><summary><b>{shown['status']}</b> {html.escape(found['description'])}"
        yield f" <span><code>{shown['code']}</code></span></summary><div class=body>"
        yield f"<h4>{media}</h4>{_json(shown)}{_given_headers(found, document)}</div></details>"
    yield _heading("Bodies")
    for name, schema in document["components"]["schemas"].items():
        yield f"<details id='body-{name}'><summary><code>{name}</code></summary><div class=body>"
        yield _prose(schema.get("description", "")) + _fields(schema) + "</div></details>"
    yield "</main><footer>Made by this server from what it runs; nothing here came from elsewhere.</footer></html>\n"


def _operation(method: str, path: str, found: Json, document: Json) -> Iterator[str]:
    yield f"<details id='{found['operationId']}'><summary><b class='method {method}'>{method}</b>"
    yield f"<code>{_breakable(path)}</code> <span>{html.escape(found['summary'])}</span></summary><div class=body>"
    yield _prose(found["description"])
    for place, title in (("path", "In the path"), ("query", "In the query"), ("header", "Headers")):
        parameters = [one for one in found.get("parameters", ()) if one["in"] == place]
        if parameters:
            yield f"<h4>{title}</h4><dl>"
            for one in parameters:
                needed = " <small>required</small>" if one["required"] and place != "path" else ""
                yield f"<dt><code>{html.escape(one['name'])}</code>{needed}<dd>{_kind(one['schema'])} "
                yield _inline(one.get("description", ""))
            yield "</dl>"
    if "requestBody" in found:
        yield "<h4>Body</h4>" + _body(found["requestBody"]["content"])
    refused = []
    for status, given in found["responses"].items():
        if "$ref" in given:
            refused.append(status)
            continue
        yield f"<h4>Answer {status}: {html.escape(given['description'])}</h4>"
        yield _body(given.get("content", {})) + _given_headers(given, document)
    yield "<h4>Refused with</h4><p>" + " · ".join(f"<a href='#errors'>{s}</a>" for s in refused) + "</p>"
    yield "</div></details>"


def _body(content: Json) -> str:
    made = ""
    for media, one in content.items():
        schema = one["schema"]
        named = _kind(schema) if "$ref" in schema else ""
        made += f"<p>{named} <small><code>{html.escape(media)}</code></small></p>"
        if "example" in one:
            made += _json(one["example"])
    return made


def _given_headers(given: Json, document: Json) -> str:
    names = [name for name in given.get("headers", {}) if name != "X-Request-ID"]
    if not names:
        return ""
    described = document["components"]["headers"]
    rows = (f"<dt><code>{name}</code><dd>{_inline(described[name]['description'])}" for name in names)
    return f"<dl>{''.join(rows)}</dl>"


def _fields(schema: Json) -> str:
    required = schema.get("required", [])
    rows = []
    for name, inner in schema.get("properties", {}).items():
        needed = " <small>required</small>" if name in required else ""
        says = _inline(inner.get("description", ""))
        rows.append(f"<dt><code>{html.escape(name)}</code>{needed}<dd>{_kind(inner)} {says}")
    return f"<dl>{''.join(rows)}</dl>"


def _kind(schema: Json) -> str:
    """Say in a few words what a schema allows."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"<a href='#body-{name}'>{name}</a>"
    if "anyOf" in schema:
        said = " or ".join(_kind(member) for member in schema["anyOf"])
    elif "enum" in schema:
        said = " | ".join(f"<code>{html.escape(str(value))}</code>" for value in schema["enum"])
    elif schema.get("type") == "array":
        items = schema.get("items")
        said = f"list of {_kind(items)}" if items else "list"
    else:
        said = html.escape(str(schema.get("format") or schema.get("type", "anything")))
    bounds = [words.format(schema[key]) for key, words in BOUNDS.items() if key in schema]
    if schema.get("default") is not None:
        bounds.append(f"default <code>{html.escape(json.dumps(schema['default']))}</code>")
    return said + (f" <small>{', '.join(bounds)}</small>" if bounds else "")


def _heading(name: str) -> str:
    return f"<h2 id='{_anchor(name)}'>{html.escape(name)}</h2>"


def _anchor(name: str) -> str:
    return re.sub(r"[^a-z]+", "-", name.lower()).strip("-")


def _breakable(path: str) -> str:
    """Let a path break after its slashes: a phone is narrower than most."""
    return html.escape(path).replace("/", "/<wbr>")


def _prose(text: str) -> str:
    return "".join(f"<p>{_inline(part)}</p>" for part in text.strip().split("\n\n") if part)


def _inline(text: str) -> str:
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text))


def _json(value: object) -> str:
    return f"<pre>{html.escape(json.dumps(value, indent=2, ensure_ascii=False))}</pre>"
