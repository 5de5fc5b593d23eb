// Heat maps of one sequence, and one unit of it as lines; what is shown is chosen above them.
(function (name) {
  const views = JSON.parse(document.getElementById(name + "-data").textContent);
  const chooser = (what) => document.getElementById(name + "-" + what);
  const [view, sequence, unit] = ["view", "sequence", "unit"].map(chooser);
  const font = { family: "system-ui, sans-serif", size: 14, color: "#1a1a1a" };
  const config = { displaylogo: false, responsive: true, showSendToCloud: false };
  const dashes = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
  const colours = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00"];

  const signed = [[0, "#053061"], [0.25, "#4393c3"], [0.5, "#f7f7f7"], [0.75, "#d6604d"],
                  [1, "#67001f"]];

  function offer(select, words) {
    const old = select.value;
    select.replaceChildren(...words.map((word) => new Option(word, word)));
    if (words.includes(old)) select.value = old;
  }

  const panels = () => views[view.value][sequence.value];
  const units = () => panels().filter((panel) => panel.rows === null);
  const named = (panel) => panel.rows || panel.values.map((_, row) => "unit " + row);

  // The place of each panel on the page, from 1 at the top down to 0; named rows are thinner.
  function domains() {
    const heights = panels().map((panel) => (panel.rows === null ? 2 : 1));
    const whole = heights.reduce((a, b) => a + b) + 0.25 * (heights.length - 1);
    let top = 1;
    return heights.map((height) => {
      const place = [Math.max(0, top - height / whole), top];
      top = place[0] - 0.25 / whole;
      return place;
    });
  }

  function maps() {
    const layout = {
      font, height: 110 * panels().length + 80, margin: { l: 110, r: 20, t: 20, b: 50 },
      coloraxis: { cmin: 0, cmax: 1, colorscale: "Viridis", colorbar: { len: 0.45, y: 0.78 } },
      coloraxis2: { cmin: -1, cmax: 1, colorscale: signed, colorbar: { len: 0.45, y: 0.25 } },
      xaxis: { title: { text: "step" }, anchor: "y" + panels().length },
    };
    const places = domains();
    const traces = panels().map((panel, row) => {
      const axis = row ? row + 1 : "";
      layout["yaxis" + axis] = {
        domain: places[row], title: { text: panel.name }, autorange: "reversed",
        showticklabels: panel.rows !== null, ticks: panel.rows === null ? "" : "outside", type: "category",
      };
      return {
        type: "heatmap", z: panel.values, y: named(panel), yaxis: "y" + axis,
        coloraxis: panel.low === 0 ? "coloraxis" : "coloraxis2",
        hovertemplate: panel.name + ", %{y}, step %{x}: %{z:.3f}<extra></extra>",
      };
    });
    Plotly.react(name, traces, layout, config);
  }

  function lines() {
    const row = unit.selectedIndex;
    const traces = units().map((panel, n) => ({
      y: panel.values[row], name: panel.name, mode: "lines",
      line: { color: colours[n % 6], dash: dashes[n % 6] },
      hovertemplate: panel.name + ", step %{x}: %{y:.3f}<extra></extra>",
    }));
    const title = { text: unit.value + ", " + sequence.value };
    const layout = {
      font, title, height: 380, margin: { l: 110, r: 20, t: 50, b: 50 },
      xaxis: { title: { text: "step" } }, yaxis: { title: { text: "value" } },
    };
    Plotly.react(name + "-lines", traces, layout, config);
  }

  function show() {
    offer(sequence, Object.keys(views[view.value]));
    offer(unit, named(units()[0]));
    maps();
    lines();
  }

  offer(view, Object.keys(views));
  show();
  view.addEventListener("change", show);
  sequence.addEventListener("change", show);
  unit.addEventListener("change", lines);
  document.getElementById(name).on("plotly_click", (event) => {
    const clicked = event.points[0];
    if (panels()[clicked.curveNumber].rows !== null) return;
    unit.value = clicked.y;
    lines();
  });
})
