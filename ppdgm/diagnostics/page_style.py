"""The style of a report's page: one style sheet, light and dark, for a phone and a laptop."""

CSS = """
:root {
  color-scheme: light dark;
  --page: #f5f6f8; --card: #fefefd; --ink: #1f2429; --muted: #5f6a76; --rule: #e2e5e9; --grey: #8a8a8a;
  --blue: #2468a4; --orange: #d2691e; --good: #1a7a3c; --warning: #8f6200; --bad: #c4314b;
  --good-wash: #e4f3e9; --warning-wash: #faf0d7; --bad-wash: #fbe5e9;
  --font: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", Arial, sans-serif;
  --mono: ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #101317; --card: #191d22; --ink: #e4e7eb; --muted: #a0a9b4; --rule: #2e343c; --grey: #868d96;
    --blue: #62a5e3; --orange: #ee9a55; --good: #5cc486; --warning: #e2b44c; --bad: #f2768a;
    --good-wash: #16301f; --warning-wash: #352a10; --bad-wash: #3d1a21;
  }
  image { filter: brightness(.94); }
  image.cloud { filter: brightness(1.6); }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 var(--font); overflow-wrap: break-word; }
main, header, footer { max-width: 1120px; margin: 0 auto; padding: 0 12px; }
header { padding-top: 28px; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 4px; letter-spacing: -.01em; }
h2 { font-size: 1.2rem; line-height: 1.3; margin: 44px 0 12px; letter-spacing: -.005em; }
h3 { font-size: 1rem; line-height: 1.35; margin: 0 0 8px; }
p { margin: 0 0 12px; }
a { color: var(--blue); }
.about, .count, figcaption, .note, footer, dt, .advice, th { color: var(--muted); }
.about { margin-bottom: 0; }
nav { margin: 12px 0 0; font-size: .875rem; }
nav ul { list-style: none; margin: 0; padding: 0; display: flex; flex-wrap: wrap; gap: 4px 16px; }
nav a { text-decoration: none; display: inline-block; padding: 3px 0; }
nav a:hover, nav a:focus-visible { text-decoration: underline; }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 12px; padding: 12px; margin: 0; }
.verdict { list-style: none; padding-top: 4px; padding-bottom: 4px; }
.verdict li { display: grid; grid-template-columns: 28px minmax(0, 1fr); gap: 12px; padding: 10px 0; }
.verdict li + li { border-top: 1px solid var(--rule); }
.verdict p { margin: 0; }
.count { margin: -8px 0 10px; }
.verdict .advice { margin-top: 2px; }
.mark { width: 28px; height: 28px; border-radius: 50%; display: grid; place-items: center; font-weight: 700; }
.good .mark { color: var(--good); background: var(--good-wash); }
.warning .mark { color: var(--warning); background: var(--warning-wash); }
.bad .mark { color: var(--bad); background: var(--bad-wash); }
.numbers { display: grid; grid-template-columns: repeat(auto-fit, minmax(122px, 1fr)); gap: 16px; margin: 12px 0 0; }
dt { font-size: .8125rem; line-height: 1.3; }
dd { margin: 2px 0 0; font-size: 1.3rem; font-weight: 600; line-height: 1.25; font-variant-numeric: tabular-nums; }
dd small { display: block; font-size: .8125rem; font-weight: 400; color: var(--muted); }
.figures { display: grid; grid-template-columns: minmax(0, 1fr); gap: 12px; }
figure.card { display: flex; flex-direction: column; min-width: 0; }
figure svg { display: block; width: 100%; height: auto; max-width: 540px; margin: 0 auto; font-family: var(--font); }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
figcaption { font-size: .875rem; line-height: 1.5; margin-top: 10px; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; margin-top: 10px;
  font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 5px 10px 5px 0; border-top: 1px solid var(--rule); vertical-align: baseline; }
thead th { border-top: 0; font-size: .8125rem; font-weight: 500; }
tbody th { font-weight: 400; color: var(--ink); }
td.number { text-align: right; white-space: nowrap; }
thead th + th { text-align: right; }
td:last-child, th:last-child { padding-right: 0; }
.total th, .total td { font-weight: 600; }
.two { display: grid; grid-template-columns: minmax(0, 1fr); gap: 12px; }
details + .two { margin-top: 12px; }
.note { margin: 12px 2px 0; font-size: .9375rem; }
summary { cursor: pointer; font-weight: 600; }
pre { margin: 10px 0 0; font: .8125rem/1.5 var(--mono); white-space: pre-wrap; overflow-wrap: anywhere; }
code { font-family: var(--mono); font-size: .9em; }
footer { padding-top: 28px; padding-bottom: 40px; font-size: .8125rem; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
@media (min-width: 800px) {
  main, header, footer { padding-left: 24px; padding-right: 24px; }
  header { padding-top: 44px; }
  .card { padding: 20px; }
  .verdict { padding-top: 10px; padding-bottom: 10px; }
  .numbers, details + .two { margin-top: 16px; }
  .figures, .two { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 16px; }
  .figures > :last-child:nth-child(odd) { grid-column: 1 / -1; display: grid; column-gap: 32px;
    grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); grid-template-rows: auto auto 1fr; }
  .figures > :last-child:nth-child(odd) > svg { grid-row: 1 / -1; grid-column: 1; }
  .figures > :last-child:nth-child(odd) > :not(svg) { grid-column: 2; }
}
@media print {
  nav { display: none; }
  .card { break-inside: avoid; }
}
"""
