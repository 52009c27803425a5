package report

import (
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Chart is a picture of bars in panels: a row of panels for each of Rows, which share a scale, and a column for each of
// Columns. Every panel has the same places for bars. Scales are logarithmic unless they are to be linear, from 0 on.
type Chart struct {
	Title   string
	Unit    string // of the values
	Linear  bool
	Rows    []string
	Columns []ChartColumn
	// Bars by row, column and place. A nil one is a gap that says so, one without a value a gap with its Title.
	Places []ChartPlace
	Bars   [][][]*ChartBar
	// ColourByName gives one colour to the bars of one name, in place of those of one group.
	ColourByName bool
}

// ChartColumn is the head of a column.
type ChartColumn struct {
	Name, Note string
	Warning    string // instead of the note, and so that it is seen
}

// ChartPlace is where a bar stands. Neighbours of the same group have one colour, and the group's name below them.
type ChartPlace struct{ Group, Name string }

// ChartBar is a value with its spread.
type ChartBar struct {
	Value, Low, High float64
	Part             float64 // a line within the bar; none if 0
	Beside           float64 // a diamond where another value would end; none if 0
	Marked           bool    // with an asterisk
	Title            string  // shown by a pointer
}

const (
	chartLeft     = 58.0
	chartRight    = 12.0
	chartGap      = 26.0 // between columns
	chartHead     = 52.0 // above the first row, for the columns' names
	chartRowHead  = 30.0 // above each row
	chartHeight   = 220.0
	chartFoot     = 44.0 // below each row, for the places' names
	chartPitch    = 32.0 // the least between bars
	chartBar      = 0.72 // of the pitch
	chartGroupGap = 0.5  // of the pitch, between groups
	chartWidest   = 60.0 // pitch
	chartDiamond  = 5.0  // from its middle to its tips
	chartRunes    = 5.8  // pixels that a rune of a note takes
	chartLeast    = 0.68 // of its size that a page shows; below it scrolls
)

// WriteSVG writes a document of its own, in the colours of light and dark.
func (c Chart) WriteSVG(w io.Writer) error {
	_, err := io.WriteString(w, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"+c.svg(true)+"\n")
	return err
}

// inline is the picture as a part of a page, whose style it takes.
func (c Chart) inline() template.HTML { return template.HTML(c.svg(false)) }

func (c Chart) svg(alone bool) string {
	groups := 0
	for i, p := range c.Places {
		if i == 0 || p.Group != c.Places[i-1].Group {
			groups++
		}
	}
	columns := float64(max(1, len(c.Columns)))
	pitches := float64(len(c.Places)) + chartGroupGap*float64(groups+1)
	room := (plotWidth-chartLeft-chartRight-chartGap*(columns-1))/columns - 1
	pitch := min(chartWidest, max(chartPitch, room/max(1, pitches)))
	panel := pitch * pitches
	width := chartLeft + chartRight + columns*panel + (columns-1)*chartGap
	height := chartHead + float64(len(c.Rows))*(chartRowHead+chartHeight+chartFoot)

	var s svg
	if alone {
		s.add(`<svg xmlns="http://www.w3.org/2000/svg" class="plot" viewBox="0 0 %s %s" role="img"><title>%s</title><style>%s</style>`,
			px(width), px(height), esc(c.Title), colourStyle+plotStyle)
		s.add(`<rect class="paper" x="0" y="0" width="%s" height="%s"/>`, px(width), px(height))
	} else {
		s.add(`<svg class="plot" viewBox="0 0 %s %s" style="min-width:%spx;max-width:%spx" role="img" aria-label="%s">`,
			px(width), px(height), px(width*chartLeast), px(width), esc(c.Title))
	}
	left := func(column int) float64 { return chartLeft + float64(column)*(panel+chartGap) }
	for i, col := range c.Columns {
		fits := int(panel / chartRunes)
		s.add(`<text class="head" x="%s" y="18">%s</text>`, px(left(i)), esc(shorten(plain(col.Name), int(panel/8))))
		class, note := "note", col.Note
		if col.Warning != "" {
			class, note = "warn", col.Warning
		}
		s.add(`<text class="%s" x="%s" y="36">%s<title>%s</title></text>`, class, px(left(i)), esc(shorten(plain(note), fits)), esc(note))
	}
	for row, name := range c.Rows {
		top := chartHead + float64(row)*(chartRowHead+chartHeight+chartFoot) + chartRowHead
		axis := c.axis(row, top)
		s.add(`<text class="axis" x="4" y="%s">%s, %s</text>`, px(top-14), esc(name), esc(c.Unit))
		for column := range c.Columns {
			c.panel(&s, axis, row, column, left(column), pitch, panel)
		}
	}
	s.add(`</svg>`)
	return s.String()
}

// axis is a scale from low to high; of a logarithmic one they are powers of ten.
type axis struct {
	ticks       []float64 // of a linear one
	low, high   float64
	top, bottom float64 // pixels
}

const chartTicks = 6 // of a linear scale, about

func (c Chart) axis(row int, top float64) axis {
	least, most := math.Inf(1), 0.0
	for _, bars := range c.Bars[row] {
		for _, b := range bars {
			if b == nil {
				continue
			}
			for _, v := range []float64{b.Value, b.Low, b.High, b.Beside} {
				if v = num(v); v > 0 {
					least, most = min(least, v), max(most, v)
				}
			}
		}
	}
	if most == 0 {
		least, most = 1, 10
	}
	a := axis{top: top, bottom: top + chartHeight}
	if c.Linear {
		a.ticks = ticks(most*1.05, chartTicks)
		a.high = a.ticks[len(a.ticks)-1]
		return a
	}
	a.low, a.high = math.Floor(math.Log10(least)-0.1), math.Ceil(math.Log10(most)+0.3)
	if a.high <= a.low {
		a.high = a.low + 1
	}
	return a
}

// y of a value; what is not above 0 has no place and lies at the bottom.
func (a axis) y(v float64) float64 {
	if v = num(v); v <= 0 {
		return a.bottom
	}
	if a.ticks == nil {
		v = math.Log10(v)
	}
	return a.bottom - (v-a.low)/(a.high-a.low)*(a.bottom-a.top)
}

// figure prints a value beside its bar.
func (a axis) figure(v float64) string {
	if a.ticks == nil {
		return short(v)
	}
	return strconv.FormatFloat(v, 'f', max(0, 2-int(math.Floor(math.Log10(a.ticks[1])))), 64)
}

// lines draws the grid behind a panel, and what its lines are worth if they are to be named.
func (a axis) lines(s *svg, left, width float64, named bool) {
	line := func(class string, v float64) {
		s.add(`<line class="%s" x1="%s" x2="%s" y1="%s" y2="%s"/>`, class, px(left), px(left+width), px(a.y(v)), px(a.y(v)))
	}
	name := func(v float64, text string) {
		if named {
			s.add(`<text class="tick" text-anchor="end" x="%s" y="%s">%s</text>`, px(left-8), px(a.y(v)+4), text)
		}
	}
	for _, v := range a.ticks {
		line("grid", v)
		name(v, label(v, a.ticks[1]))
	}
	if a.ticks != nil {
		return
	}
	for e := a.low; e <= a.high; e++ {
		line("grid", math.Pow(10, e))
		name(math.Pow(10, e), "10"+superscript(int(e)))
		for m := 2.0; m < 10 && e < a.high; m++ {
			line("minor", m*math.Pow(10, e))
		}
	}
}

func (c Chart) panel(s *svg, a axis, row, column int, left, pitch, width float64) {
	a.lines(s, left, width, column == 0)
	s.add(`<line class="axisline" x1="%s" x2="%s" y1="%s" y2="%s"/>`, px(left), px(left+width), px(a.bottom), px(a.bottom))
	x, group, groupLeft := left, -1, left
	for i, p := range c.Places {
		if i == 0 || p.Group != c.Places[i-1].Group {
			x += chartGroupGap * pitch
			group++
			groupLeft = x
		}
		colour := group
		if c.ColourByName {
			colour = slices.IndexFunc(c.Places, func(q ChartPlace) bool { return q.Name == p.Name })
		}
		c.bar(s, a, c.Bars[row][column][i], p, x+pitch/2, pitch*chartBar, colour)
		x += pitch
		s.add(`<text class="tick" text-anchor="middle" x="%s" y="%s">%s</text>`, px(x-pitch/2), px(a.bottom+15), esc(p.Name))
		if i+1 == len(c.Places) || c.Places[i+1].Group != p.Group {
			s.add(`<text class="name" text-anchor="middle" x="%s" y="%s">%s</text>`, px((groupLeft+x)/2), px(a.bottom+33), esc(p.Group))
		}
	}
}

func (c Chart) bar(s *svg, a axis, b *ChartBar, p ChartPlace, mid, width float64, colour int) {
	if b == nil || num(b.Value) <= 0 {
		why := p.Group + p.Name + ": not measured"
		if b != nil && b.Title != "" {
			why = b.Title
		}
		s.add(`<text class="gap note" text-anchor="middle" x="%s" y="%s">–<title>%s</title></text>`, px(mid), px(a.bottom-5), esc(why))
		return
	}
	top := a.y(b.Value)
	s.add(`<g><title>%s</title><rect class="bar s%d" x="%s" y="%s" width="%s" height="%s"/>`, esc(b.Title), colour%plotColours,
		px(mid-width/2), px(top), px(width), px(max(1, a.bottom-top)))
	if part := num(b.Part); part > 0 {
		s.add(`<line class="part" x1="%s" x2="%s" y1="%s" y2="%s"/>`, px(mid-width/2), px(mid+width/2), px(a.y(part)), px(a.y(part)))
	}
	above := top
	if num(b.Low) > 0 && num(b.High) > b.Low {
		above = min(above, a.y(b.High))
		s.add(`<path class="whisker" d="M%s %sh8m-4 0V%sm-4 0h8"/>`, px(mid-4), px(a.y(b.High)), px(a.y(b.Low)))
	}
	if beside := num(b.Beside); beside > 0 {
		if yy := a.y(beside); yy < above+chartDiamond && yy > above-3*chartDiamond { // where the figure would be
			above = yy - chartDiamond
		}
		s.add(`<path class="beside" d="M%s %sl%[3]s %[3]s -%[3]s %[3]s -%[3]s -%[3]sz"/>`, px(mid), px(a.y(beside)-chartDiamond), px(chartDiamond))
	}
	s.add(`<text class="figure-value" text-anchor="middle" x="%s" y="%s">%s</text>`, px(mid), px(above-4), a.figure(b.Value))
	if b.Marked {
		s.add(`<text class="mark" text-anchor="middle" x="%s" y="%s">*</text>`, px(mid), px(above-13))
	}
	s.add(`</g>`)
}

// short prints a value with two or three digits: "57k", "1.2M".
func short(v float64) string {
	for _, u := range []struct {
		name  string
		scale float64
	}{{"T", 1e12}, {"G", 1e9}, {"M", 1e6}, {"k", 1e3}, {"", 1}} {
		if v < 0.9995*u.scale && u.scale > 1 {
			continue
		}
		if v/u.scale < 9.95 {
			return strings.TrimSuffix(strconv.FormatFloat(v/u.scale, 'f', 1, 64), ".0") + u.name
		}
		return strconv.FormatFloat(v/u.scale, 'f', 0, 64) + u.name
	}
	return fmt.Sprint(v)
}

func superscript(n int) string {
	return strings.NewReplacer("-", "⁻", "0", "⁰", "1", "¹", "2", "²", "3", "³", "4", "⁴", "5", "⁵", "6", "⁶", "7", "⁷", "8", "⁸", "9", "⁹").
		Replace(strconv.Itoa(n))
}
