"""How the page looks: dark on white, on narrow windows and on paper too."""

STYLE = """
html { font: 16px/1.5 system-ui, "Segoe UI", "DejaVu Sans", Arial, sans-serif; color: #1b1b1b; background: #fff; }
body { max-width: 1180px; margin: 0 auto; padding: 0 20px 48px; overflow-wrap: break-word; }
h1 { font-size: 1.75rem; line-height: 1.25; margin: 28px 0 8px; }
h2 { font-size: 1.35rem; line-height: 1.3; margin: 40px 0 8px; padding-top: 16px; border-top: 3px solid #0072b2; }
h3 { font-size: 1.08rem; margin: 28px 0 6px; }
p, ul { margin: 8px 0; }
p, li, dd, figcaption { max-width: 78ch; overflow-wrap: anywhere; }
code { font: 0.9em/1.45 ui-monospace, "DejaVu Sans Mono", Consolas, monospace; overflow-wrap: anywhere; }
a { color: #005a8e; }
.headline { font-size: 1.08rem; }
.box { border: 1px solid; border-left-width: 6px; padding: 8px 16px; margin: 16px 0; }
.box p, .box li { max-width: none; }
.warning { border-color: #d55e00; background: #fff6ef; }
.quiet { color: #555; }
dl { display: grid; grid-template-columns: minmax(8em, max-content) 1fr; gap: 4px 20px; margin: 14px 0; }
dt { color: #555; }
dd { margin: 0; }
.table { overflow-x: auto; margin: 16px 0; }
table { border-collapse: collapse; font-size: 0.82rem; line-height: 1.35; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: 4px 0; font-size: 1.25em; }
th, td { padding: 5px 9px; text-align: right; vertical-align: top; border-bottom: 1px solid #d9d9d9; }
td { white-space: nowrap; }
thead th { vertical-align: bottom; border-bottom: 2px solid #555; font-weight: 600; }
th.text, td.text { text-align: left; }
tbody th { font-weight: 500; min-width: 12.5em; max-width: 22em; overflow-wrap: anywhere; }
td.text { min-width: 7em; max-width: 22em; white-space: normal; }
tbody tr:first-child { background: #eef5fa; }
figure { margin: 12px 0 20px; break-inside: avoid; }
figcaption { color: #444; font-size: 0.92rem; }
svg { display: block; width: 100%; height: auto; stroke-linejoin: round; stroke-linecap: butt; }
ol.key { columns: 16em; font-size: 0.88rem; margin: 8px 0; padding-left: 2.2em; }
ol.key li { break-inside: avoid; }
details { margin: 10px 0; }
summary { cursor: pointer; font-weight: 600; }
footer { margin-top: 40px; padding-top: 10px; border-top: 1px solid #d9d9d9; color: #555; font-size: 0.9rem; }
@media (max-width: 640px) {
  body { padding: 0 12px 32px; }
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: 6px; }
}
@media print {
  html { font-size: 11px; }
  body { max-width: none; padding: 0; }
  .table { overflow: visible; }
  section { break-before: page; }
  section:first-of-type { break-before: avoid; }
}
"""
