"""How the page looks: one column, light or dark as the reader's device."""

CSS = """\
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #ffffff; --soft: #595959;
  --line: #d4d4d4; --band: #f3f3f3; --above: #0072b2; --noise: #737373; --below: #c14f00; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e8; --paper: #16181b; --soft: #adadad; --line: #3d4146; --band: #212429;
    --above: #56b4e9; --noise: #9a9a9a; --below: #f0883e; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; -webkit-text-size-adjust: 100%; }
main { max-width: 68rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.4rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 0.6rem; }
p, li, figcaption, dl { max-width: 44rem; overflow-wrap: anywhere; }
.verdict { font-size: 1.2rem; line-height: 1.4; font-weight: 600; padding-left: 0.8rem;
  border-left: 0.4rem solid var(--noise); }
.above .verdict { border-color: var(--above); }
.below .verdict { border-color: var(--below); }
dl { display: grid; grid-template-columns: auto 1fr; gap: 0.15rem 1rem; font-size: 0.9rem; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: 0; }
figcaption { color: var(--soft); font-size: 0.9rem; margin-top: 0.5rem; }
.scroll { overflow-x: auto; }
.picture { background: #ffffff; border-radius: 0.4rem; padding: 0.25rem; }
.picture svg { display: block; width: 100%; height: auto; margin: 0 auto; }
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.6rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
thead th { color: var(--soft); font-weight: 500; vertical-align: bottom; }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--paper);
  max-width: 11rem; white-space: normal; overflow-wrap: anywhere; font-weight: 400; }
tr.coe th, tr.coe td { background: var(--band); font-weight: 600; }
tr.oracle th, tr.oracle td { color: var(--soft); font-style: italic; }
details { margin: 0.8rem 0; }
summary { cursor: pointer; padding: 0.4rem 0; }
"""
