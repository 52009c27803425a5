package report

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"sort"
	"strconv"
	"strings"
)

// Plots are SVG within the page; their colours and fonts are the page's (classes and custom properties), so that they follow
// light and dark.

const (
	plotWidth    = 960.0
	plotHeight   = 300.0
	plotLeft     = 64.0
	plotRight    = 16.0
	plotTop      = 34.0
	plotBottom   = 44.0
	plotColours  = 6    // --c0 to --c5
	plotSeries   = 12   // more are drawn as one
	plotPoints   = 900  // about one a pixel
	rekeyLabels  = 12   // more are not labelled
	denseRekeys  = 30   // more are drawn faintly
	rekeySpacing = 70.0 // pixels that a label needs
)

// svg collects an SVG document. Text goes through esc, numbers through px.
type svg struct{ strings.Builder }

func (s *svg) add(format string, args ...any) { fmt.Fprintf(s, format, args...) }

func esc(s string) string { return html.EscapeString(plain(s)) }

// px prints a coordinate. What is no number cannot be drawn and must not be printed.
func px(f float64) string {
	f = max(-1e5, min(1e5, num(f)))
	return strconv.FormatFloat(math.Round(f*100)/100, 'f', -1, 64)
}

// ticks gives round values from 0 to most, about n of them, the last not below most.
func ticks(most float64, n int) []float64 {
	most = num(most)
	if most <= 0 {
		most = 1
	}
	raw := most / float64(n)
	mag := math.Pow(10, math.Floor(math.Log10(raw)))
	step := 10 * mag
	for _, m := range []float64{1, 2, 2.5, 5} {
		if m*mag >= raw*0.999 {
			step = m * mag
			break
		}
	}
	var out []float64
	for i := 0; i <= 2*n+1; i++ {
		v := float64(i) * step
		out = append(out, v)
		if v >= most*0.999999 {
			break
		}
	}
	return out
}

// label prints a tick with as many decimals as its neighbours need.
func label(v, step float64) string {
	if v >= 1e6 {
		return strconv.FormatFloat(v, 'g', 2, 64)
	}
	decimals := 0
	for d := step; decimals < 6 && math.Abs(d-math.Round(d)) > 1e-6*d; d *= 10 {
		decimals++
	}
	return strconv.FormatFloat(v, 'f', decimals, 64)
}

// series is a step function: value v[i] from t[i] to t[i+1], the last until end. Times in ms, values in bit/s.
type series struct {
	name string
	t, v []float64
	end  float64
	bits uint64
}

// flowSeries turns bins into rates. The last bin is as long as the flow was; a sliver joins its neighbour.
func flowSeries(f Flow) series {
	s := series{name: flowName(f)}
	start := num(f.Start)
	n := len(f.Bins)
	if n == 0 {
		return s
	}
	bits := make([]float64, n)
	for i, b := range f.Bins {
		bits[i] = float64(b.Bits)
		s.bits += b.Bits
	}
	end := float64(f.Bins[n-1].At) + BinMs
	if d := num(f.Duration); d > float64(f.Bins[n-1].At) && d < end {
		end = d
	}
	if n > 1 && end-float64(f.Bins[n-1].At) < BinMs/4 {
		bits[n-2] += bits[n-1]
		n--
	}
	group := (n + plotPoints - 1) / plotPoints
	for i := 0; i < n; i += group {
		j := min(n, i+group)
		var sum float64
		for _, b := range bits[i:j] {
			sum += b
		}
		from := float64(f.Bins[i].At)
		to := end
		if j < n {
			to = float64(f.Bins[j].At)
		}
		s.t = append(s.t, start+from)
		s.v = append(s.v, sum/max(1, to-from)*1e3)
	}
	s.end = start + end
	return s
}

func flowName(f Flow) string {
	name := f.From + " → " + f.To
	if f.Name != "" {
		name = f.Name + ": " + name
	}
	return name + " (" + f.Proto + ")"
}

// together sums step functions.
func together(in []series, name string) series {
	at := map[float64]bool{}
	out := series{name: name}
	for _, s := range in {
		for _, t := range s.t {
			at[t] = true
		}
		at[s.end] = true
		out.end = max(out.end, s.end)
		out.bits += s.bits
	}
	delete(at, out.end)
	for t := range at {
		out.t = append(out.t, t)
	}
	sort.Float64s(out.t)
	out.v = make([]float64, len(out.t))
	for _, s := range in {
		i := sort.SearchFloat64s(out.t, s.t[0])
		for j := range s.t {
			to := s.end
			if j+1 < len(s.t) {
				to = s.t[j+1]
			}
			for ; i < len(out.t) && out.t[i] < to; i++ {
				out.v[i] += s.v[j]
			}
		}
	}
	return out
}

// legend names a series beside its colour.
type legend struct {
	Colour int
	Dashed bool
	Name   string
}

type throughput struct {
	SVG    template.HTML
	Legend []legend
	Empty  bool
	Lossy  bool // a rekey lost packets, and its line says so
}

func plotThroughput(r Result) throughput {
	var all []series
	for _, f := range r.Traffic {
		if s := flowSeries(f); len(s.t) > 0 {
			all = append(all, s)
		}
	}
	if len(all) == 0 {
		return throughput{Empty: true}
	}
	if len(all) > plotSeries {
		sort.SliceStable(all, func(i, j int) bool { return all[i].bits > all[j].bits })
		rest := all[plotSeries-1:]
		all = append(all[:plotSeries-1:plotSeries-1], together(rest, fmt.Sprintf("%d other flows together", len(rest))))
	}
	var most, end float64
	for _, s := range all {
		end = max(end, s.end)
		for _, v := range s.v {
			most = max(most, v)
		}
	}
	for _, k := range r.Rekeys {
		end = max(end, num(k.At))
	}
	u := rateUnit(most)
	yt := ticks(most/u.scale, 5)
	top := yt[len(yt)-1]
	x := func(ms float64) float64 { return plotLeft + num(ms)/max(end, 1)*(plotWidth-plotLeft-plotRight) }
	y := func(bps float64) float64 {
		return plotHeight - plotBottom - num(bps)/u.scale/top*(plotHeight-plotTop-plotBottom)
	}
	var out throughput
	var s svg
	s.add(`<svg class="plot" viewBox="0 0 %s %s" role="img" aria-label="Throughput over time">`, px(plotWidth), px(plotHeight))
	for _, v := range yt {
		yy := px(y(v * u.scale))
		s.add(`<line class="grid" x1="%s" x2="%s" y1="%s" y2="%s"/>`, px(plotLeft), px(plotWidth-plotRight), yy, yy)
		s.add(`<text class="tick" text-anchor="end" x="%s" y="%s">%s</text>`, px(plotLeft-8), px(y(v*u.scale)+4), label(v, yt[1]))
	}
	s.add(`<text class="axis" x="%s" y="%s">%s</text>`, px(4), px(plotTop-18), u.name)
	tu := unit{"s", 1e3}
	if end < 2000 {
		tu = unit{"ms", 1}
	}
	xt := ticks(end/tu.scale, 10)
	for _, v := range xt {
		if v*tu.scale > end*1.0001 {
			continue
		}
		xx := px(x(v * tu.scale))
		s.add(`<line class="axisline" x1="%s" x2="%s" y1="%s" y2="%s"/>`, xx, xx, px(plotHeight-plotBottom), px(plotHeight-plotBottom+5))
		s.add(`<text class="tick" text-anchor="middle" x="%s" y="%s">%s</text>`, xx, px(plotHeight-plotBottom+19), label(v, xt[1]))
	}
	s.add(`<text class="axis" text-anchor="end" x="%s" y="%s">time in %s</text>`, px(plotWidth-plotRight), px(plotHeight-6), tu.name)
	s.add(`<line class="axisline" x1="%s" x2="%s" y1="%s" y2="%s"/>`, px(plotLeft), px(plotWidth-plotRight), px(y(0)), px(y(0)))

	out.Lossy = drawRekeys(&s, r.Rekeys, x)

	for i, se := range all {
		var p, area strings.Builder
		fmt.Fprintf(&p, "M%s %s", px(x(se.t[0])), px(y(se.v[0])))
		for j := range se.t {
			if j > 0 {
				fmt.Fprintf(&p, "V%s", px(y(se.v[j])))
			}
			to := se.end
			if j+1 < len(se.t) {
				to = se.t[j+1]
			}
			fmt.Fprintf(&p, "H%s", px(x(to)))
		}
		if len(all) == 1 {
			fmt.Fprintf(&area, "%sV%sH%sZ", p.String(), px(y(0)), px(x(se.t[0])))
			s.add(`<path class="area s%d" d="%s"/>`, i%plotColours, area.String())
		}
		dashed := i >= plotColours
		class := ""
		if dashed {
			class = " dashed"
		}
		s.add(`<path class="line s%d%s" d="%s"><title>%s</title></path>`, i%plotColours, class, p.String(), esc(se.name))
		out.Legend = append(out.Legend, legend{i % plotColours, dashed, plain(se.name)})
	}
	s.add(`</svg>`)
	out.SVG = template.HTML(s.String())
	return out
}

// drawRekeys marks each rekey; those that lost packets in another colour, and the trigger while there is room.
func drawRekeys(s *svg, rekeys []Rekey, x func(float64) float64) (lossy bool) {
	free := 0.0
	for _, k := range rekeys {
		class := "rekey"
		if len(rekeys) > denseRekeys {
			class = "rekey dense"
		}
		if k.Lost > 0 {
			class, lossy = class+" lossy", true
		}
		xx := x(k.At)
		s.add(`<g class="%s"><title>rekey of %s by %s at %s, %s packets of the old SAs did not arrive</title>`, class, esc(k.Tunnel), esc(k.Trigger), moment(k.At), count(k.Lost))
		s.add(`<line x1="%s" x2="%s" y1="%s" y2="%s"/>`, px(xx), px(xx), px(plotTop-4), px(plotHeight-plotBottom))
		s.add(`<path d="M%s %sl-4 -6h8z"/>`, px(xx), px(plotTop-2))
		if len(rekeys) <= rekeyLabels && xx >= free {
			anchor := "middle"
			if xx > plotWidth-rekeySpacing {
				anchor = "end"
			}
			s.add(`<text text-anchor="%s" x="%s" y="%s">%s</text>`, anchor, px(xx), px(plotTop-14), esc(shorten(k.Trigger, 10)))
			free = xx + rekeySpacing
		}
		s.add(`</g>`)
	}
	return lossy
}

// bar is a row of a bar chart; from and to are a whisker, if they differ.
type bar struct {
	name, note string
	value      float64
	from, to   float64
	colour     int
	text       string // beside the bar
}

// plotBars draws horizontal bars. Values share the unit u.
func plotBars(title string, bars []bar, u unit) template.HTML {
	if len(bars) == 0 {
		return ""
	}
	const nameWidth, row, textWidth = 230.0, 26.0, 150.0
	const foot = 40.0
	height := row*float64(len(bars)) + foot
	most := 0.0
	for _, b := range bars {
		most = max(most, num(b.value), num(b.to))
	}
	xt := ticks(most/u.scale, 5)
	span := plotWidth - nameWidth - textWidth
	x := func(v float64) float64 { return nameWidth + num(v)/u.scale/xt[len(xt)-1]*span }
	var s svg
	s.add(`<svg class="plot" viewBox="0 0 %s %s" role="img" aria-label="%s">`, px(plotWidth), px(height), esc(title))
	for _, v := range xt {
		xx := px(x(v * u.scale))
		s.add(`<line class="grid" x1="%s" x2="%s" y1="0" y2="%s"/>`, xx, xx, px(height-foot+4))
		s.add(`<text class="tick" text-anchor="middle" x="%s" y="%s">%s</text>`, xx, px(height-foot+19), label(v, xt[1]))
	}
	s.add(`<text class="axis" text-anchor="start" x="%s" y="%s">%s</text>`, px(nameWidth+span+16), px(height-foot+19), esc(u.name))
	s.add(`<line class="axisline" x1="%s" x2="%s" y1="0" y2="%s"/>`, px(nameWidth), px(nameWidth), px(height-foot+4))
	for i, b := range bars {
		mid := row*float64(i) + row/2
		full := b.name
		if b.note != "" {
			full += ", " + b.note
		}
		s.add(`<g><title>%s: %s</title>`, esc(full), esc(b.text))
		s.add(`<text class="name" text-anchor="end" x="%s" y="%s">%s`, px(nameWidth-10), px(mid+4), esc(shorten(b.name, 30-min(14, len(b.note)))))
		if b.note != "" {
			s.add(`<tspan class="note" dx="5">%s</tspan>`, esc(shorten(b.note, 12)))
		}
		s.add(`</text><rect class="bar s%d" x="%s" y="%s" width="%s" height="%s" rx="2"/>`, b.colour%plotColours,
			px(nameWidth), px(mid-row*0.32), px(max(1, x(b.value)-nameWidth)), px(row*0.64))
		if b.to > b.from {
			s.add(`<path class="whisker" d="M%s %sv8m0 -4H%sm0 -4v8"/>`, px(x(b.from)), px(mid-4), px(x(b.to)))
		}
		s.add(`<text class="value" x="%s" y="%s">%s</text></g>`, px(max(x(b.value), x(b.to))+8), px(mid+4), esc(b.text))
	}
	s.add(`</svg>`)
	return template.HTML(s.String())
}

// plotExchange draws the steps of the exchanges: the median of each over the tunnels, and from the shortest to the longest.
func plotExchange(exchanges []*Exchange) template.HTML {
	type key struct{ name, side string }
	values := map[key][]float64{}
	var order []key
	for _, e := range exchanges {
		for _, st := range e.Steps {
			k := key{st.Name, st.Side}
			if values[k] == nil {
				order = append(order, k)
			}
			values[k] = append(values[k], num(st.Ms))
		}
	}
	var bars []bar
	most := 0.0
	for _, k := range order {
		v := values[k]
		sort.Float64s(v)
		m := v[len(v)/2]
		if len(v)%2 == 0 {
			m = (v[len(v)/2-1] + m) / 2
		}
		colour := 2
		switch k.side {
		case "initiator":
			colour = 0
		case "responder":
			colour = 1
		}
		bars = append(bars, bar{name: k.name, note: k.side, value: m, from: v[0], to: v[len(v)-1], colour: colour, text: millis(m)})
		most = max(most, v[len(v)-1])
	}
	return plotBars("Key exchange by step", bars, timeUnit(most))
}

// cpuBars bounds the nodes that are drawn one by one.
const cpuBars = 24

func plotCPU(r Result) template.HTML {
	var bars []bar
	for name, s := range r.CPUSeconds {
		bars = append(bars, bar{name: name, value: num(s) * 1e3})
	}
	sort.Slice(bars, func(i, j int) bool {
		if bars[i].value != bars[j].value {
			return bars[i].value > bars[j].value
		}
		return bars[i].name < bars[j].name
	})
	if len(bars) > cpuBars {
		rest := bar{name: fmt.Sprintf("%d others together", len(bars)-cpuBars+1), colour: 2}
		for _, b := range bars[cpuBars-1:] {
			rest.value += b.value
		}
		bars = append(bars[:cpuBars-1], rest)
	}
	most := 0.0
	for i := range bars {
		most = max(most, bars[i].value)
		bars[i].text = millis(bars[i].value)
		if d := num(r.Duration); d > 0 {
			bars[i].text += fmt.Sprintf(" (%s %% of a core)", significant(100*bars[i].value/d))
		}
	}
	return plotBars("CPU time per node", bars, timeUnit(most))
}
