/**
 * The style of the page: one type scale (12, 14, 16, 20, 32 px), two colours with a meaning, and hairlines. It is dark
 * if the reader's system is.
 */

export const STYLE = `:root {
  color-scheme: light dark;
  --paper: #fdfdfc; --ink: #1b1d21; --soft: #5b626b; --line: #dfe1e4; --faint: #eceded;
  --unsafe: #b5442c; --safe: #2c6e91; --heat: #7fa8bf;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #131519; --ink: #e7e9ec; --soft: #a0a7b0; --line: #363b43; --faint: #23272d;
    --unsafe: #ee8469; --safe: #74b4d3; --heat: #35718f;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
table, dd, svg, .meta { font-variant-numeric: tabular-nums; }
main { max-width: 1040px; margin: 0 auto; padding: 56px 32px 64px; }
h1, h2, h3, p, dl, dd, ol, figure, blockquote { margin: 0; padding: 0; }
h1 { font-size: 32px; line-height: 1.2; font-weight: 650; letter-spacing: -0.015em; overflow-wrap: anywhere; }
h2 { font-size: 20px; line-height: 1.3; font-weight: 650; letter-spacing: -0.01em; }
h3 { font-size: 16px; font-weight: 650; }
p { max-width: 76ch; text-wrap: pretty; }
b { font-weight: 600; }
section { margin-top: 48px; padding-top: 20px; border-top: 1px solid var(--line); }
section > p { margin-top: 4px; color: var(--soft); }
section > p b { color: var(--ink); }
.over { font-size: 14px; color: var(--soft); margin-bottom: 4px; }
.lead { margin-top: 8px; color: var(--soft); }
.lead b { color: var(--ink); overflow-wrap: anywhere; }
.note { margin-top: 8px; padding-left: 12px; border-left: 3px solid var(--unsafe); }
.what, figcaption { font-size: 14px; color: var(--soft); font-weight: 400; }
.interval { font-size: 14px; font-weight: 400; color: var(--soft); white-space: pre; }

.tiles { display: grid; grid-template-columns: repeat(4, 1fr); margin-top: 32px; border-top: 1px solid var(--line); }
.tiles div { padding: 16px 16px 18px; border-left: 1px solid var(--line); display: flex; flex-direction: column; justify-content: space-between; }
.tiles div:first-child { padding-left: 0; border-left: 0; }
.tiles dt { font-size: 14px; color: var(--soft); }
.tiles dd { margin-top: 4px; font-size: 32px; line-height: 1.2; font-weight: 600; letter-spacing: -0.015em; }
.tiles .interval { display: block; letter-spacing: 0; margin-top: 2px; }

.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 40px 56px; margin-top: 28px; align-items: start; }
.pair.wide-left { grid-template-columns: 1.45fr 1fr; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(176px, 1fr)); gap: 20px 24px; margin-top: 24px; }
.facts dt { font-size: 14px; color: var(--soft); }
.facts dd b { display: block; }
.facts .what { display: block; margin-top: 2px; line-height: 1.4; }

table { border-collapse: collapse; width: 100%; font-size: 14px; }
caption { text-align: left; font-weight: 650; font-size: 16px; padding-bottom: 8px; }
th, td { text-align: right; padding: 7px 8px; border-bottom: 1px solid var(--faint); font-weight: 400; }
thead th, thead td { color: var(--soft); border-bottom-color: var(--line); vertical-align: bottom; line-height: 1.3; }
tbody th { text-align: left; }
th:first-child, td:first-child { padding-left: 0; }
.heat { background: color-mix(in srgb, var(--heat) calc(var(--s) * 62%), transparent); border: 1px solid var(--paper); min-width: 52px; }
.none { color: var(--soft); }
.rates td { font-size: 16px; font-weight: 600; white-space: nowrap; }
.rates tbody th { white-space: nowrap; }
.rates tbody th, .confusion tbody th { font-size: 14px; }
.rates .plot { width: 188px; padding: 0 0 0 16px; }
.ends { display: flex; justify-content: space-between; padding: 0 3px; font-size: 12px; font-weight: 400; color: var(--soft); }
.whisker { display: block; overflow: visible; }
.confusion tbody th { border-bottom: 0; }
.confusion td.heat { padding: 12px 8px; font-size: 16px; text-align: center; }
.confusion thead th { text-align: center; border-bottom: 0; padding-top: 0; padding-bottom: 4px; }
.confusion thead td { border-bottom: 0; padding: 0; }
.confusion thead tr:first-child th { color: var(--ink); }
.key { display: inline-block; width: 9px; height: 9px; margin-right: 6px; border-radius: 50%; border: 2px solid var(--ink); }
.key.strict { background: var(--ink); }

.scroll { overflow-x: auto; margin-top: 20px; }
.scroll:focus-visible { outline: 2px solid var(--safe); outline-offset: 4px; }
.matrix thead th { font-size: 12px; min-width: 64px; max-width: 104px; }
.matrix td { min-width: 52px; }
.matrix tbody th { min-width: 72px; max-width: 220px; padding-right: 12px; overflow-wrap: anywhere; }
.matrix .total { color: var(--soft); padding-right: 16px; min-width: 0; }
.groups th[scope="col"], .groups td { text-align: left; white-space: nowrap; padding-left: 24px; }
.groups tbody th { overflow-wrap: anywhere; min-width: 112px; }
.groups .of { display: inline-block; min-width: 64px; text-align: right; }
.groups .interval { display: inline-block; min-width: 48px; margin-left: 6px; text-align: right; }
.track { display: inline-block; vertical-align: middle; width: 112px; height: 8px; margin-right: 12px; background: var(--faint); }
.fill { display: block; height: 8px; width: calc(var(--s) * 100%); }
.fill.good { background: var(--safe); }
.fill.bad { background: var(--unsafe); }

figure h3 { margin-bottom: 12px; }
figure svg { display: block; width: 100%; height: auto; overflow: visible; }
figcaption { margin-top: 8px; text-wrap: pretty; }
svg text { font-size: 12px; fill: var(--soft); font-family: inherit; }
svg .title { fill: var(--soft); }
svg .small { font-size: 10.5px; }
svg .name { font-size: 13px; font-weight: 600; fill: var(--ink); paint-order: stroke; stroke: var(--paper); stroke-width: 4px; stroke-linejoin: round; }
svg .grid { stroke: var(--faint); fill: none; }
svg .axis { stroke: var(--soft); fill: none; }
svg .guide { stroke: var(--soft); stroke-dasharray: 3 4; fill: none; }
svg .curve { stroke: var(--safe); stroke-width: 2; stroke-linejoin: round; fill: none; }
svg .strict { fill: var(--ink); stroke: var(--paper); stroke-width: 1.5; }
svg .loose { fill: var(--paper); stroke: var(--ink); stroke-width: 1.75; }
svg .dot { fill: var(--safe); }
svg .bar { fill: var(--heat); }
svg .unsafe { fill: var(--unsafe); }
svg .safe { fill: var(--safe); }

ol { list-style: none; margin-top: 12px; }
li { padding: 12px 0; border-top: 1px solid var(--faint); }
blockquote { overflow-wrap: anywhere; }
.meta { margin-top: 4px; font-size: 14px; color: var(--soft); }
.missed .meta b { color: var(--safe); }
.alarms .meta b { color: var(--unsafe); }
.where { margin-left: 8px; overflow-wrap: anywhere; }
footer { margin-top: 56px; padding-top: 20px; border-top: 1px solid var(--line); font-size: 14px; color: var(--soft); }

@media (max-width: 840px) {
  .pair, .pair.wide-left { grid-template-columns: minmax(0, 1fr); gap: 36px; }
}
@media (max-width: 600px) {
  main { padding: 32px 18px 48px; }
  .tiles { grid-template-columns: 1fr 1fr; }
  .tiles div:nth-child(odd) { padding-left: 0; border-left: 0; }
  .tiles div:nth-child(n + 3) { border-top: 1px solid var(--line); }
  .rates .plot { display: none; }
  .rates td { white-space: normal; }
  .rates .interval { display: block; }
  .facts { grid-template-columns: 1fr; gap: 16px; }
  .groups th[scope="col"], .groups td { padding-left: 12px; white-space: normal; }
  .groups .of, .groups .interval { display: block; margin-left: 0; text-align: left; }
  .track { display: block; width: 100%; margin: 2px 0 4px; }
}
@media print {
  main { max-width: none; padding: 0; }
  section, figure, li { break-inside: avoid; }
}
`;
