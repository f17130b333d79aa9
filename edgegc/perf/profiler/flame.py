"""Profiles as files: a flame graph, one SVG that needs nothing else and zooms in any browser, and a speedscope document.

Knows no scenario. The root is on top; what is below a function is what it called, as wide as its share.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Final

import msgspec

from edgegc.perf.profiler.profile import short

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from edgegc.perf.profiler.profile import Profile, Unit
    from edgegc.perf.profiler.recording import Frame

ROW_PX: Final = 18
TOP_PX: Final = 58
"""For the title and the legend."""
NARROWEST: Final = 0.0005
"""Of the whole width: below a pixel on a wide screen, nobody can point at it."""
SHADES: Final = 4
"""Neighbours of one kind are told apart by it."""
LEGEND: Final = {
    "ours": "edgegc",
    "trio": "trio",
    "other": "other packages",
    "python": "Python",
    "name": "thread, task",
}
STYLE: Final = """
svg { --page: #fcfcfb; --ink: #1a1a19; --quiet: #6b6a66; --ours: #f0a35e; --trio: #7fb2e5; --other: #93c9a1; --python: #cfcdc6; --name: #e6e3da; --found: #d946c9; background: var(--page); font: 12px system-ui, sans-serif; }
@media (prefers-color-scheme: dark) { svg { --page: #1a1a19; --ink: #f3f2ee; --quiet: #a5a39b; --ours: #a85f1c; --trio: #2f6597; --other: #3b7249; --python: #55534d; --name: #3a3935; --found: #c026ac; } }
text { fill: var(--ink); pointer-events: none; white-space: pre; }
.title { font-size: 15px; font-weight: 600; } .quiet { fill: var(--quiet); }
.f { cursor: pointer; } .f rect { stroke: var(--page); stroke-width: 0.6; }
.ours rect { fill: var(--ours); } .trio rect { fill: var(--trio); } .other rect { fill: var(--other); } .python rect { fill: var(--python); } .name rect { fill: var(--name); }
.f:hover rect { stroke: var(--ink); stroke-width: 1; } .found rect { fill: var(--found); }
.above rect { fill-opacity: 0.45; }
#search { cursor: pointer; pointer-events: all; text-decoration: underline; }
"""
SCRIPT: Final = """
const root = document.documentElement, frames = [...root.querySelectorAll(".f")].map(e => ({e, x: +e.dataset.x, w: +e.dataset.w, d: +e.dataset.d}));
function zoom(to) {
  for (const f of frames) {
    const above = f.d < to.d && f.x <= to.x + 1e-9 && f.x + f.w >= to.x + to.w - 1e-9;
    const inside = f.d >= to.d && f.x >= to.x - 1e-9 && f.x + f.w <= to.x + to.w + 1e-9;
    f.e.style.display = above || inside ? "" : "none";
    f.e.classList.toggle("above", above);
    f.e.setAttribute("x", above ? "0%" : (f.x - to.x) / to.w * 100 + "%");
    f.e.setAttribute("width", above ? "100%" : f.w / to.w * 100 + "%");
  }
}
function search() {
  const wanted = prompt("Functions or files that match (regular expression); nothing: none");
  if (wanted === null) return;
  const pattern = wanted && new RegExp(wanted, "i"), hits = [];
  for (const f of frames) {
    const hit = pattern && pattern.test(f.e.querySelector("text").textContent + " " + f.e.querySelector("title").textContent.split("\\n")[0]);
    f.e.classList.toggle("found", !!hit);
    if (hit) hits.push(f);
  }
  let share = 0, end = -1;
  for (const f of hits.sort((a, b) => a.x - b.x || b.w - a.w)) if (f.x + f.w > end) { share += f.x + f.w - Math.max(end, f.x); end = f.x + f.w; }
  root.getElementById("search").textContent = pattern ? `search: ${(share * 100).toFixed(1)} % match` : "search";
}
for (const f of frames) f.e.addEventListener("click", () => zoom(f));
root.getElementById("search").addEventListener("click", search);
addEventListener("keydown", event => { if (event.key === "/") { event.preventDefault(); search(); } if (event.key === "Escape") zoom(frames[0]); });
"""


@dataclass
class _Node:
    label: str
    where: str
    kind: str
    weight: float = 0.0
    inner: dict[tuple[str, str], _Node] = field(default_factory=dict)


def svg(profiles: Mapping[str, Profile], *, title: str, subtitle: str) -> str:
    """Return a flame graph of profiles by name; of several each is a part as wide as its total."""
    unit = next(iter(profiles.values())).unit if profiles else "s"
    root = _Node("all", "", "name")
    for name, profile in profiles.items():
        top = root
        if len(profiles) > 1 and name:
            top = root.inner.setdefault(("", name), _Node(name, "", "name"))
            root.weight += profile.total
        _grow(top, profile)
    rows = list(_rows(root, root.weight or 1.0, 0.0, 0))
    height = TOP_PX + ROW_PX * (1 + max((depth for _, _, depth, _ in rows), default=0)) + 8
    legend = "".join(
        f'<tspan dx="{0 if number == 0 else 10}" style="fill: var(--{kind})">■</tspan><tspan dx="3">{name}</tspan>'
        for number, (kind, name) in enumerate(LEGEND.items())
    )
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="100%" height="{height}" role="img" aria-label="{escape(title)}">\n'
        f"<style>{STYLE}</style>\n"
        f'<text class="title" x="8" y="18">{escape(title)}</text>\n'
        f'<text class="quiet" x="8" y="34">{escape(subtitle)}</text>\n'
        f'<text class="quiet" x="8" y="50">{legend}<tspan dx="14">a click zooms, Esc is back, / or </tspan>'
        f'<tspan id="search">search</tspan></text>\n'
    )
    body = "".join(
        _box(node, x, depth, share, unit=unit, total=root.weight or 1.0) for node, x, depth, share in rows
    )
    return f"{head}{body}<script><![CDATA[{SCRIPT}]]></script>\n</svg>\n"


def speedscope(profiles: Mapping[str, Profile], *, title: str) -> bytes:
    """Return the same for https://www.speedscope.app, which shows it by time, by function, and upside down."""
    numbers: dict[Frame, int] = {}
    shown = []
    for name, profile in profiles.items():
        # By function, as a flame graph.
        samples = [
            [numbers.setdefault(frame._replace(line=0), len(numbers)) for frame in stack]
            for stack in profile.weights
        ]
        shown.append(
            {
                "type": "sampled",
                "name": name or title,
                "unit": "bytes" if profile.unit == "bytes" else "seconds",
                "startValue": 0,
                "endValue": profile.total,
                "samples": samples,
                "weights": list(profile.weights.values()),
            }
        )
    frames = [
        {"name": frame.function, "file": short(frame.file)} if frame.file else {"name": frame.function}
        for frame in numbers
    ]
    return msgspec.json.encode(
        {
            "$schema": "https://www.speedscope.app/file-format-schema.json",
            "name": title,
            "exporter": "edgegc perf profile",
            "shared": {"frames": frames},
            "profiles": shown,
        }
    )


def amount(weight: float, unit: Unit) -> str:
    """Return a weight for people."""
    if unit == "s":
        return f"{weight:.2f} s" if weight >= 1 else f"{weight * 1000:.1f} ms"
    return f"{weight / 1048576:.1f} MiB" if weight >= 1048576 else f"{weight / 1024:.1f} KiB"


def _grow(top: _Node, profile: Profile) -> None:
    for stack, weight in profile.weights.items():
        if weight <= 0:
            continue
        node = top
        node.weight += weight
        for frame in stack:
            key = (frame.file, frame.function)
            if key not in node.inner:
                node.inner[key] = _Node(frame.function, short(frame.file) if frame.file else "", _kind(frame))
            node = node.inner[key]
            node.weight += weight


def _rows(node: _Node, total: float, x: float, depth: int) -> Iterator[tuple[_Node, float, int, float]]:
    share = node.weight / total
    if share < NARROWEST:
        return
    yield node, x, depth, share
    for inner in sorted(node.inner.values(), key=lambda each: (-each.weight, each.label)):
        yield from _rows(inner, total, x, depth + 1)
        x += inner.weight / total


def _box(node: _Node, x: float, depth: int, share: float, *, unit: Unit, total: float) -> str:
    where = f" ({node.where})" if node.where else ""
    said = f"{node.label}{where}\n{amount(node.weight, unit)}, {share:.1%}"
    shade = int(hashlib.blake2b(f"{node.label}{node.where}".encode(), digest_size=1).hexdigest(), 16) % SHADES
    opacity = 1 - 0.09 * shade
    return (
        f'<svg class="f {node.kind}" data-x="{x:.6f}" data-w="{share:.6f}" data-d="{depth}" x="{x * 100:.4f}%"'
        f' y="{TOP_PX + depth * ROW_PX}" width="{share * 100:.4f}%" height="{ROW_PX}"><title>{escape(said)}</title>'
        f'<rect width="100%" height="{ROW_PX - 1}" fill-opacity="{opacity:.2f}" rx="1"/>'
        f'<text x="3" y="13">{escape(node.label)}</text></svg>\n'
    )


def _kind(frame: Frame) -> str:
    if not frame.file:
        return "name"
    file = short(frame.file)
    if file.startswith("edgegc/"):
        return "ours"
    if file.startswith("trio/"):
        return "trio"
    return "other" if "site-packages" in frame.file else "python"
