package report

import (
	"html/template"
	"io"
)

// Map is a picture of a table whose cells have colours: what was found at each place of two scales.
type Map struct {
	Title   string
	Corner  string // names the scales: "delay, loss \ rate"
	Columns []string
	Rows    []string
	Cells   [][]MapCell // by row and column; fewer are empty
	Legend  []string    // what the colours mean, from Colour 1 on
}

// MapCell is a place.
type MapCell struct {
	Colour     int    // 1 is the first of the page's colours; 0 is none
	Text, Note string // large and small
	Title      string // shown by a pointer
}

const (
	mapLeft   = 130.0
	mapHead   = 34.0
	mapWidth  = 176.0 // of a cell
	mapHeight = 46.0
	mapGap    = 3.0
	mapFoot   = 34.0
)

// WriteSVG writes a document of its own, in the colours of light and dark.
func (m Map) WriteSVG(w io.Writer) error {
	_, err := io.WriteString(w, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"+m.svg(true)+"\n")
	return err
}

// inline is the picture as a part of a page, whose style it takes.
func (m Map) inline() template.HTML { return template.HTML(m.svg(false)) }

func (m Map) svg(alone bool) string {
	width := mapLeft + mapWidth*float64(len(m.Columns))
	height := mapHead + mapHeight*float64(len(m.Rows)) + mapFoot
	var s svg
	if alone {
		s.add(`<svg xmlns="http://www.w3.org/2000/svg" class="plot" viewBox="0 0 %s %s" role="img"><title>%s</title><style>%s</style>`,
			px(width), px(height), esc(m.Title), colourStyle+plotStyle)
		s.add(`<rect class="paper" x="0" y="0" width="%s" height="%s"/>`, px(width), px(height))
	} else {
		s.add(`<svg class="plot" viewBox="0 0 %s %s" style="min-width:%spx;max-width:%spx" role="img" aria-label="%s">`,
			px(width), px(height), px(width*chartLeast), px(width), esc(m.Title))
	}
	s.add(`<text class="note" x="4" y="20">%s</text>`, esc(m.Corner))
	for i, c := range m.Columns {
		s.add(`<text class="name" text-anchor="middle" x="%s" y="20">%s</text>`, px(mapLeft+mapWidth*(float64(i)+0.5)), esc(c))
	}
	for i, name := range m.Rows {
		top := mapHead + mapHeight*float64(i)
		s.add(`<text class="name" text-anchor="end" x="%s" y="%s">%s</text>`, px(mapLeft-10), px(top+mapHeight/2+4), esc(name))
		for j := range m.Columns {
			var cell MapCell
			if i < len(m.Cells) && j < len(m.Cells[i]) {
				cell = m.Cells[i][j]
			}
			m.cell(&s, cell, mapLeft+mapWidth*float64(j), top)
		}
	}
	x := mapLeft
	for i, text := range m.Legend {
		s.add(`<rect class="field %s" x="%s" y="%s" width="14" height="14"/><text class="note" x="%s" y="%s">%s</text>`,
			field(i+1), px(x), px(height-18), px(x+20), px(height-6), esc(text))
		x += 40 + chartRunes*1.1*float64(len([]rune(text)))
	}
	s.add(`</svg>`)
	return s.String()
}

func (m Map) cell(s *svg, c MapCell, x, y float64) {
	s.add(`<g><title>%s</title><rect class="field %s" x="%s" y="%s" width="%s" height="%s" rx="3"/>`, esc(c.Title), field(c.Colour),
		px(x+mapGap/2), px(y+mapGap/2), px(mapWidth-mapGap), px(mapHeight-mapGap))
	s.add(`<text class="name" text-anchor="middle" x="%s" y="%s">%s</text>`, px(x+mapWidth/2), px(y+20), esc(shorten(c.Text, 22)))
	s.add(`<text class="note" text-anchor="middle" x="%s" y="%s">%s</text></g>`, px(x+mapWidth/2), px(y+36), esc(shorten(c.Note, 26)))
}

// field is the class of a colour.
func field(colour int) string {
	if colour <= 0 {
		return "none"
	}
	return "f" + string(rune('0'+(colour-1)%plotColours))
}
