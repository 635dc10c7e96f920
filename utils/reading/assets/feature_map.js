(event, svg, open) => {
  // One handler for the map's mousemove, mouseleave, click and keydown. `open` is told which latent was chosen.
  const state = svg.ptsState ||= { xy: svg.dataset.xy.split(" ").map(Number), names: svg.dataset.names.split("\n"), numbers: svg.dataset.numbers.split(" "), at: -1 };
  const { xy, names, numbers } = state, cursor = svg.querySelector(".pts-cursor");
  const place = at => {
    state.at = at;
    cursor.setAttribute("visibility", at < 0 ? "hidden" : "visible");
    if (at >= 0) { cursor.setAttribute("cx", xy[2 * at]); cursor.setAttribute("cy", xy[2 * at + 1]); }
    const hover = svg.closest(".pts-root").querySelector(".pts-hover");
    if (hover) hover.textContent = at < 0 ? "" : `latent ${numbers[at]}: ${names[at]}`;
  };
  // The dot for which `cost(dx, dy)` is least, none if that is not below `limit`.
  const nearest = (x, y, limit, cost) => {
    let best = -1;
    for (let i = 0; i < numbers.length; i++) {
      const far = cost(xy[2 * i] - x, xy[2 * i + 1] - y);
      if (far < limit) { limit = far; best = i; }
    }
    return best;
  };
  if (event.type === "mouseleave") return place(-1);
  if (event.type === "keydown") {
    if (event.key === "Enter" && state.at >= 0) { event.preventDefault(); return open(numbers[state.at]); }
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    if (state.at < 0) {  // start at the latent whose page is open
      const here = svg.closest(".pts-root").querySelector("[data-here]");
      return place(Math.max(0, here ? numbers.indexOf(here.dataset.here) : 0));
    }
    const next = nearest(xy[2 * state.at], xy[2 * state.at + 1], Infinity, (dx, dy) => {
      const ahead = dx * step[0] + dy * step[1], aside = Math.abs(dx * step[1]) + Math.abs(dy * step[0]);
      return ahead > 0 && aside <= ahead ? ahead + 2 * aside : Infinity;
    });
    return next < 0 ? undefined : place(next);
  }
  const box = svg.getBoundingClientRect();
  place(nearest((event.clientX - box.left) / box.width * 1000, (event.clientY - box.top) / box.height * 1000, 40 ** 2, (dx, dy) => dx * dx + dy * dy));
  if (event.type === "click" && state.at >= 0) open(numbers[state.at]);
}
