package topology

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// SVG draws the lab: nodes with their addresses, links with name, rate and subnets, tunnels as brackets above. It is one
// self-contained image, in the reader's light or dark colours; its classes begin with "pl-", so that a page can hold it.
func (p *Plan) SVG() []byte {
	d := newDrawing(p)
	d.arrange()
	d.tunnels()
	for i := range p.Links {
		d.link(i)
	}
	for i := range p.Nodes {
		d.node(i)
	}
	d.traffic()
	return d.finish()
}

const style = `.pl-bg{fill:#fff}.pl-box{fill:#f7f8fa;stroke:#c3c8d1}.pl-t{fill:#1b1f27;font:600 14px system-ui,sans-serif}.pl-h{font-size:18px}` +
	`.pl-s{fill:#5b6472;font:12px system-ui,sans-serif}.pl-m{fill:#2f3742;font:11px ui-monospace,Menlo,Consolas,monospace}.pl-f{fill:#6c7583}` +
	`.pl-l{fill:none;stroke:#7d8795;stroke-width:2}.pl-fibre{stroke:#d18a00;stroke-width:3}.pl-wifi{stroke:#2f7de1;stroke-dasharray:2 6;stroke-linecap:round;stroke-width:3}` +
	`.pl-pcie{stroke:#7d8795;stroke-width:6}.pl-pcie2{stroke:#fff;stroke-width:2}.pl-halo{fill:#fff}` +
	`.pl-tun{fill:none;stroke-width:2.5}.pl-i{fill:none;stroke:#5b6472;stroke-width:1.6;stroke-linejoin:round;stroke-linecap:round}` +
	`.pl-c0{stroke:#0a7d4b}.pl-c1{stroke:#8a3ffc}.pl-c2{stroke:#c2185b}.pl-c3{stroke:#006fb9}.pl-c4{stroke:#a35200}` +
	`.pl-x0{fill:#0a7d4b}.pl-x1{fill:#8a3ffc}.pl-x2{fill:#c2185b}.pl-x3{fill:#006fb9}.pl-x4{fill:#a35200}.pl-x{font-weight:600;stroke:none}` +
	`@media (prefers-color-scheme:dark){.pl-bg,.pl-halo{fill:#14171c}.pl-box{fill:#1e232b;stroke:#3c4450}.pl-t{fill:#eef1f5}.pl-m{fill:#d3d9e1}.pl-s,.pl-f{fill:#9aa4b2}` +
	`.pl-l{stroke:#8b95a3}.pl-fibre{stroke:#f0b13c}.pl-wifi{stroke:#6aa9f7}.pl-pcie2{stroke:#14171c}.pl-i{stroke:#9aa4b2}` +
	`.pl-c0{stroke:#3ecf8e}.pl-c1{stroke:#b794ff}.pl-c2{stroke:#ff7eb0}.pl-c3{stroke:#5ab8ff}.pl-c4{stroke:#f0a35e}` +
	`.pl-x0{fill:#3ecf8e}.pl-x1{fill:#b794ff}.pl-x2{fill:#ff7eb0}.pl-x3{fill:#5ab8ff}.pl-x4{fill:#f0a35e}}`

const (
	margin   = 28.0
	char     = 6.7 // width of a monospace character
	line     = 15.0
	headline = 36.0 // of a node: icon, name, kind
	rowGap   = 96.0 // room for the label of a vertical link
	laneGap  = 34.0 // between tunnels
	port     = 38.0 // height at which links enter a node
	maxShown = 5    // interfaces of a node
	maxLabel = 48   // characters of what is written at a link
)

type drawing struct {
	p          *Plan
	back, b    bytes.Buffer // lines go behind everything else
	index      map[string]int
	boxes      []box
	boxW, gap  float64
	width      float64
	top, floor float64 // of the first row, below the last
}

type box struct {
	column, row int
	x, y, h     float64 // left, top, height
	lines       []string
}

func (b box) centre(w float64) float64 { return b.x + w/2 }

func newDrawing(p *Plan) *drawing {
	d := &drawing{p: p, index: map[string]int{}, boxes: make([]box, len(p.Nodes)), boxW: 180, gap: 170}
	for i, n := range p.Nodes {
		d.index[n.Name] = i
		d.boxes[i].lines = nodeLines(n)
		d.boxW = max(d.boxW, 74+8.6*float64(len(n.Name)+len(n.Kind)))
		for _, l := range d.boxes[i].lines {
			d.boxW = max(d.boxW, 24+char*float64(utf8.RuneCountInString(l)))
		}
		d.boxes[i].h = headline + line*float64(max(1, len(d.boxes[i].lines))) + 8
	}
	for i := range p.Links {
		for _, l := range d.linkLines(i) {
			d.gap = max(d.gap, 36+char*float64(utf8.RuneCountInString(l)))
		}
	}
	return d
}

// nodeLines are the interfaces of a node and their addresses.
func nodeLines(n PlannedNode) []string {
	var lines []string
	longest := 0
	for _, itf := range n.Interfaces[:min(len(n.Interfaces), maxShown+1)] {
		longest = max(longest, len(itf.Name))
	}
	for i, itf := range n.Interfaces {
		if i == maxShown && len(n.Interfaces) > maxShown+1 {
			return append(lines, fmt.Sprintf("… %d more interfaces", len(n.Interfaces)-i))
		}
		if len(itf.Addresses) == 0 {
			lines = append(lines, itf.Name)
		}
		for j, a := range itf.Addresses {
			name := itf.Name
			if j > 0 {
				name = ""
			}
			lines = append(lines, fmt.Sprintf("%-*s %v", longest, name, a))
		}
	}
	return lines
}

// linkLines are what is written at a link: two lines above it, the rest below.
func (d *drawing) linkLines(i int) []string {
	l := d.p.Links[i]
	what := string(l.Kind)
	if s := speedText(l); s != "-" && l.WiFi == nil {
		what += " " + s
	}
	if l.WiFi != nil {
		what += " " + l.WiFi.Profile
	}
	lines := []string{l.Name, what}
	if l.Delay > 0 || l.Jitter > 0 {
		lines = append(lines, delayText(l.Shape))
	}
	if lossText(l.Shape) != "-" {
		lines = append(lines, "loss "+lossText(l.Shape))
	}
	if l.WiFi != nil {
		lines = append(lines, shorten(strings.TrimPrefix(l.WiFi.String(), l.WiFi.Profile+" "), maxLabel))
		l.WiFi = nil
	}
	if other := otherText(l); other != "" {
		lines = append(lines, shorten(other, maxLabel))
	}
	for _, end := range []End{l.A, l.B} {
		for _, a := range end.Addresses {
			if s := a.Masked().String(); !slices.Contains(lines, s) {
				lines = append(lines, s)
			}
		}
	}
	return lines[:min(len(lines), 6)]
}

// arrange gives each node its place: columns by distance from one end of the longest way, which is the first row; the
// host of a DPU that is not in that row goes below its DPU. Parts that are not joined go below one another.
func (d *drawing) arrange() {
	neighbours := make([][]int, len(d.boxes))
	for _, l := range d.p.Links {
		a, b := d.index[l.A.Node], d.index[l.B.Node]
		neighbours[a], neighbours[b] = append(neighbours[a], b), append(neighbours[b], a)
	}
	placed := make([]bool, len(d.boxes))
	firstRow, columns := 0, 0
	var rowHeights []float64
	for i := range d.boxes {
		if placed[i] {
			continue
		}
		part, _ := breadthFirst(neighbours, i)
		part, from := breadthFirst(neighbours, part[len(part)-1])
		if len(part) > 1 && part[len(part)-1] < part[0] { // the end that the author named first is left
			part, from = breadthFirst(neighbours, part[len(part)-1])
		}
		spine := map[int]bool{}
		for at := part[len(part)-1]; at >= 0; at = from[at] {
			spine[at] = true
		}
		used := map[int]int{} // rows used, by column
		put := func(n, column, row int) {
			placed[n] = true
			d.boxes[n].column, d.boxes[n].row = column, firstRow+row
			used[column] = max(used[column], row+1)
			columns = max(columns, column+1)
			for len(rowHeights) <= firstRow+row {
				rowHeights = append(rowHeights, 0)
			}
			rowHeights[firstRow+row] = max(rowHeights[firstRow+row], d.boxes[n].h)
		}
		for _, n := range part { // the spine is ordered from left to right
			if spine[n] {
				column := 0
				if from[n] >= 0 {
					column = d.boxes[from[n]].column + 1
				}
				put(n, column, 0)
			}
		}
		for _, n := range part {
			if placed[n] {
				continue
			}
			column := d.boxes[from[n]].column + 1
			if dpu := from[n]; d.p.Nodes[dpu].Host == d.p.Nodes[n].Name && spine[dpu] && used[column-1] == 1 {
				column--
			}
			put(n, column, max(1, used[column]))
		}
		for _, rows := range used {
			firstRow = max(firstRow, len(rowHeights), rows)
		}
	}
	d.width = 2*margin + float64(columns)*d.boxW + float64(max(0, columns-1))*d.gap
	d.width = max(d.width, 2*margin+420, 2*margin+10*float64(len(d.p.Name)))
	y := make([]float64, len(rowHeights)+1)
	for i, h := range rowHeights {
		y[i+1] = y[i] + h + rowGap
	}
	for i := range d.boxes {
		b := &d.boxes[i]
		b.x = margin + float64(b.column)*(d.boxW+d.gap)
		b.y = y[b.row]
	}
	d.floor = y[len(rowHeights)] - rowGap
}

// breadthFirst returns the nodes that start is joined to, by distance, and from where each was reached.
func breadthFirst(neighbours [][]int, start int) (order []int, from map[int]int) {
	order, from = []int{start}, map[int]int{start: -1}
	for i := 0; i < len(order); i++ {
		for _, n := range neighbours[order[i]] {
			if _, seen := from[n]; !seen {
				from[n] = order[i]
				order = append(order, n)
			}
		}
	}
	return order, from
}

// lane is a tunnel's bracket.
type lane struct {
	tunnel, lane int
	a, b         int     // nodes, left and right
	xa, xb       float64 // centres
}

// tunnels assigns lanes above the first row, shorter brackets lower, and draws them.
func (d *drawing) tunnels() {
	lanes := make([]lane, len(d.p.Tunnels))
	for i, t := range d.p.Tunnels {
		l := lane{tunnel: i, a: d.index[t.A.Node], b: d.index[t.B.Node]}
		l.xa, l.xb = d.anchor(l.a), d.anchor(l.b)
		if l.xa > l.xb {
			l.a, l.b, l.xa, l.xb = l.b, l.a, l.xb, l.xa
		}
		lanes[i] = l
	}
	slices.SortStableFunc(lanes, func(a, b lane) int { return cmp.Compare(a.xb-a.xa, b.xb-b.xa) })
	var taken [][]lane
	for i := range lanes {
		l := &lanes[i]
		for l.lane = 0; l.lane < len(taken); l.lane++ {
			if !slices.ContainsFunc(taken[l.lane], func(o lane) bool { return l.xa < o.xb && o.xa < l.xb || l.xa == l.xb }) {
				break
			}
		}
		if l.lane == len(taken) {
			taken = append(taken, nil)
		}
		taken[l.lane] = append(taken[l.lane], *l)
	}
	d.top = margin + 52 + laneGap*float64(len(taken))
	if len(taken) > 0 {
		d.top += 12
	}
	for i := range d.boxes {
		d.boxes[i].y += d.top
	}
	d.floor += d.top
	slots := d.slots(lanes)
	for i, l := range lanes {
		d.bracket(l, slots[i])
	}
}

// anchor is about where a tunnel leaves a node: above it, or beside it if there is a node above.
func (d *drawing) anchor(n int) float64 {
	x := d.boxes[n].centre(d.boxW)
	if d.boxes[n].row > 0 {
		x += d.boxW/2 + 10
	}
	return x
}

// slots spreads the tunnels of a node so that brackets do not cross more than they have to: those to the left first,
// lower lanes further out.
func (d *drawing) slots(lanes []lane) [][2]float64 {
	type end struct {
		lane, side int
		key        int
	}
	ends := map[int][]end{}
	for i, l := range lanes {
		ends[l.a] = append(ends[l.a], end{i, 0, 1_000_000 - l.lane})
		ends[l.b] = append(ends[l.b], end{i, 1, l.lane - 1_000_000})
	}
	xs := make([][2]float64, len(lanes))
	for n, es := range ends {
		slices.SortStableFunc(es, func(a, b end) int { return cmp.Compare(a.key, b.key) })
		step := min(22, (d.boxW-24)/float64(len(es)))
		if d.boxes[n].row > 0 {
			step = min(5, d.gap/3/float64(len(es)))
		}
		for k, e := range es {
			x := d.anchor(n) + step*(float64(k)-float64(len(es)-1)/2)
			if d.boxes[n].row > 0 {
				x = d.anchor(n) + step*float64(k)
			}
			xs[e.lane][e.side] = x
		}
	}
	return xs
}

func (d *drawing) bracket(l lane, x [2]float64) {
	const r = 12.0
	t := d.p.Tunnels[l.tunnel]
	y := d.top - 16 - laneGap*float64(l.lane)
	colour := l.tunnel % 5
	end := func(n int, x float64) (float64, float64) { // where the bracket meets its node
		b := d.boxes[n]
		if b.row > 0 {
			return b.x + d.boxW, b.y + 18
		}
		return x, b.y
	}
	xa, ya := end(l.a, x[0])
	xb, yb := end(l.b, x[1])
	bend := min(r, max(0, (x[1]-x[0])/2))
	fmt.Fprintf(&d.back, `<path class="pl-tun pl-c%d" d="M%.1f %.1fH%.1fV%.1fQ%.1f %.1f %.1f %.1fH%.1fQ%.1f %.1f %.1f %.1fV%.1fH%.1f"/>`,
		colour, xa, ya, x[0], y+bend, x[0], y, x[0]+bend, y, x[1]-bend, x[1], y, x[1], y+bend, yb, xb)
	for _, e := range [][2]float64{{xa, ya}, {xb, yb}} {
		fmt.Fprintf(&d.b, `<circle class="pl-x%d pl-x" cx="%.1f" cy="%.1f" r="4"/>`, colour, e[0], e[1])
	}
	room := int((x[1] - x[0] - 20) / char)
	d.text((x[0]+x[1])/2, y-6, "middle", fmt.Sprintf("pl-m pl-x pl-x%d", colour), shorten(t.Name+"  "+t.keyedBy(), max(room, 8)), true)
}

// link draws a link and what it is.
func (d *drawing) link(i int) {
	l := d.p.Links[i]
	a, b := d.boxes[d.index[l.A.Node]], d.boxes[d.index[l.B.Node]]
	if a.column > b.column || a.column == b.column && a.row > b.row {
		a, b = b, a
	}
	lines := d.linkLines(i)
	var path string
	var x, y float64 // of the label
	switch {
	case a.column < b.column:
		xa, ya, xb, yb := a.x+d.boxW, a.y+port, b.x, b.y+port
		path = fmt.Sprintf("M%.1f %.1fL%.1f %.1f", xa, ya, xb, yb)
		x, y = (xa+xb)/2, (ya+yb)/2
		if ya == yb {
			d.stroke(l.Kind, path)
			d.labels(x, y-8-line, "middle", lines[:2], false)
			d.labels(x, y+17, "middle", lines[2:], false)
			return
		}
		d.stroke(l.Kind, path)
		d.labels(x, y-line*float64(len(lines))/2+10, "middle", lines, true)
	case b.row == a.row+1:
		x = a.centre(d.boxW)
		d.stroke(l.Kind, fmt.Sprintf("M%.1f %.1fV%.1f", x, a.y+a.h, b.y))
		y = (a.y+a.h+b.y)/2 - line*float64(len(lines))/2 + 11
		d.labels(x+12, y, "start", lines, false)
	default: // around the nodes between them
		x = a.x - 14
		d.stroke(l.Kind, fmt.Sprintf("M%.1f %.1fC%.1f %.1f %.1f %.1f %.1f %.1f", a.x, a.y+port, x-30, a.y+port, x-30, b.y+port, b.x, b.y+port))
		d.labels(x-20, (a.y+b.y)/2+20, "middle", lines[:2], true)
	}
}

func (d *drawing) stroke(k LinkKind, path string) {
	fmt.Fprintf(&d.back, `<path class="pl-l pl-%s" d="%s"/>`, k, path)
	if k == PCIe {
		fmt.Fprintf(&d.back, `<path class="pl-l pl-pcie2" d="%s"/>`, path)
	}
}

func (d *drawing) labels(x, y float64, anchor string, lines []string, halo bool) {
	for i, s := range lines {
		class := "pl-m"
		if i > 0 || !strings.Contains(s, "-") {
			class = "pl-m pl-f"
		}
		d.text(x, y+line*float64(i), anchor, class, s, halo)
	}
}

func (d *drawing) node(i int) {
	n, b := d.p.Nodes[i], d.boxes[i]
	fmt.Fprintf(&d.b, `<rect class="pl-box" x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="8"/>`, b.x, b.y, d.boxW, b.h)
	fmt.Fprintf(&d.b, `<path class="pl-i" transform="translate(%.1f %.1f)" d="%s"/>`, b.x+11, b.y+9, icon(n.Kind))
	d.text(b.x+38, b.y+23, "start", "pl-t", n.Name, false)
	kind := string(n.Kind)
	if n.Profile != "" && len(n.Profile)+len(n.Name) < 18 {
		kind = n.Profile
	}
	d.text(b.x+d.boxW-11, b.y+23, "end", "pl-s", kind, false)
	for k, s := range b.lines {
		d.text(b.x+12, b.y+headline+line*float64(k)+10, "start", "pl-m", s, false)
	}
}

// icon is drawn in 18 by 18.
func icon(k NodeKind) string {
	switch k {
	case Client: // a laptop
		return "M3 3h12v9H3zM1 15h16"
	case DPU: // a chip
		return "M4 4h10v10H4zM7 1v3M11 1v3M7 14v3M11 14v3M1 7h3M1 11h3M14 7h3M14 11h3"
	case AP: // waves
		return "M1 7a11 11 0 0 1 16 0M4 10.5a7 7 0 0 1 10 0M6.8 13.5a3 3 0 0 1 4.4 0M9 16v.2"
	case Switch: // arrows both ways
		return "M2 6h13l-3-3M16 12H3l3 3"
	}
	return "M2 2h14v6H2zM2 10h14v6H2zM5 5h.2M5 13h.2M9 5h4M9 13h4" // a server
}

// traffic lists the flows below the lab.
func (d *drawing) traffic() {
	for i, f := range d.p.Traffic {
		y := d.floor + 34 + line*float64(i)
		if i == 8 && len(d.p.Traffic) > 9 {
			d.text(margin, y, "start", "pl-s", fmt.Sprintf("… %d more flows", len(d.p.Traffic)-i), false)
			break
		}
		s := fmt.Sprintf("%s %s → %s", strings.ToUpper(f.Proto), strings.Join(append([]string{f.From}, f.Via...), " → "), f.To)
		if f.Rate > 0 {
			s += " at " + f.Rate.String()
		}
		if len(f.Tunnels) > 0 {
			s += " through " + strings.Join(f.Tunnels, ", ")
		} else {
			s += " in plaintext"
		}
		d.text(margin, y, "start", "pl-s", shorten(s, int((d.width-2*margin)/6)), false)
	}
}

func (d *drawing) text(x, y float64, anchor, class, s string, halo bool) {
	if s == "" {
		return
	}
	if halo {
		w := char*float64(utf8.RuneCountInString(s)) + 8
		left := x - 4
		if anchor == "middle" {
			left = x - w/2
		}
		fmt.Fprintf(&d.b, `<rect class="pl-halo" x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="3"/>`, left, y-11, w, line)
	}
	fmt.Fprintf(&d.b, `<text class="%s" x="%.1f" y="%.1f" text-anchor="%s" xml:space="preserve">`, class, x, y, anchor)
	xml.EscapeText(&d.b, []byte(s)) // a Buffer does not fail
	d.b.WriteString("</text>")
}

func (d *drawing) finish() []byte {
	height := d.floor + margin
	if n := len(d.p.Traffic); n > 0 {
		height += 24 + line*float64(min(n, 9))
	}
	d.text(margin, margin+12, "start", "pl-t pl-h", d.p.Name, false)
	d.text(margin, margin+32, "start", "pl-s", shorten(strings.ReplaceAll(d.p.Description, "\n", " "), int((d.width-2*margin)/6)), false)
	var out bytes.Buffer
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" width="%.0f" height="%.0f" role="img"><title>`, d.width, height, d.width, height)
	xml.EscapeText(&out, []byte(d.p.Name))
	fmt.Fprintf(&out, `</title><style>%s</style><rect class="pl-bg" width="100%%" height="100%%" rx="10"/>`, style)
	out.Write(d.back.Bytes())
	out.Write(d.b.Bytes())
	out.WriteString("</svg>\n")
	return out.Bytes()
}

func shorten(s string, most int) string {
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:max(most-1, 0)]) + "…"
}
