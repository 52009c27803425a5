package report

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"io"
)

//go:embed document.html
var documentText string

// Document is a page of charts, tables and text, in the style of a run's report. All of its strings are shown as they are.
type Document struct {
	Title    string
	Subtitle string
	Version  string // of pqlab
	Warnings []string
	Sections []Section
}

// Section is a part of a Document. What it has not got is left out.
type Section struct {
	Title string
	Chart *Chart
	Map   *Map
	Table *Table
	Facts []Fact
	Notes []string
}

// Table has columns of text, and after them columns of numbers.
type Table struct {
	Text int // columns of text
	Head []string
	Rows [][]string
}

// Fact is something with a name.
type Fact struct{ Name, Value string }

// WriteHTML writes one page that needs nothing else: no script, no font, no image from elsewhere.
func (d Document) WriteHTML(w io.Writer) error {
	t, err := template.New("document").Funcs(template.FuncMap{
		"style": style, "plain": plain, "chart": func(c *Chart) template.HTML { return c.inline() }, "map": func(m *Map) template.HTML { return m.inline() },
	}).Parse(documentText)
	if err != nil {
		return fmt.Errorf("%s as HTML: %w", d.Title, err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, d); err != nil {
		return fmt.Errorf("%s as HTML: %w", d.Title, err)
	}
	_, err = w.Write(b.Bytes())
	return err
}
