/* Formulas stand in the pages as TeX. Temml makes MathML of them, which browsers draw themselves. */
for (const formula of document.querySelectorAll("span.math, div.math:not(.math-wrapper)")) {
  for (const part of [...formula.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE)) {
    const tex = part.data.trim().match(/^\\([([])([^]*)\\[)\]]$/);
    if (!tex) continue;
    const drawn = document.createElement("span"), display = tex[1] === "[";
    const draw = (wrap) => temml.render(tex[2].trim(), drawn, { displayMode: display, wrap, throwOnError: false });
    part.replaceWith(drawn);
    draw("none");
    if (!display && drawn.offsetWidth > formula.parentElement.clientWidth) draw("tex"); // broken between its terms
  }
}
