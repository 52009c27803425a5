package report

import (
	"bytes"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"sort"
	"strings"
)

//go:embed page.html
var pageText string

// What pages and pictures share: the first defines the colours of light and dark that the others use.
var (
	//go:embed style/colours.css
	colourStyle string
	//go:embed style/page.css
	pageStyle string
	//go:embed style/plot.css
	plotStyle string
)

func style() template.CSS { return template.CSS(colourStyle + pageStyle + plotStyle) }

// page is everything that the template shows.
type page struct {
	R          Result
	Verdict    string
	Detail     string
	Figures    []figure
	Throughput throughput
	Exchange   template.HTML
	Exchanges  []*Exchange // that the plot is of
	CPU        template.HTML
	Picture    template.URL
	Command    string
	RekeysOpen bool
}

// figure is a number worth showing large.
type figure struct{ Value, Name, Note string }

// tableName bounds names in tables, in runes.
const tableName = 48

// fewRows are shown at once; a longer list opens on demand.
const fewRows = 12

// WriteHTML writes one page that needs nothing else: no script, no font, no image from elsewhere. Whatever a user named is
// escaped; the lab's picture is embedded as an image, in which a browser runs and fetches nothing.
func (r Result) WriteHTML(w io.Writer) error {
	t, err := template.New("page").Funcs(template.FuncMap{
		"style": style, "rate": Rate, "flowrate": Flow.rate, "asked": Flow.asked, "sent": Flow.sent, "percent": percent, "around": around, "packets": func(n int64) string { return count(uint64(n)) }, "ms": millis, "us": micros, "at": moment, "count": count, "size": size, "join": strings.Join,
		"drops": dropsText, "few": func(n int) bool { return n <= fewRows }, "plain": plain, "short": func(s string) string { return shorten(plain(s), tableName) }, "inc": func(i int) int { return i + 1 },
		"spi": func(n uint32) string { return fmt.Sprintf("0x%08x", n) },
	}).Parse(pageText)
	if err != nil {
		return fmt.Errorf("report as HTML: %w", err)
	}
	p := page{
		R: r, Verdict: r.Verdict(), Detail: r.verdictDetail(), Figures: figures(r), Throughput: plotThroughput(r),
		CPU: plotCPU(r), Command: plain(shell(r.Command)), RekeysOpen: len(r.Rekeys) <= fewRows,
	}
	for _, t := range r.Tunnels {
		if t.Exchange != nil {
			p.Exchanges = append(p.Exchanges, t.Exchange)
		}
	}
	if len(p.Exchanges) == 0 && r.Exchange != nil {
		p.Exchanges = []*Exchange{r.Exchange}
	}
	p.Exchange = plotExchange(p.Exchanges)
	if r.Picture != "" {
		p.Picture = template.URL("data:image/svg+xml;base64," + base64.StdEncoding.EncodeToString([]byte(r.Picture)))
	}
	var b bytes.Buffer
	if err := t.Execute(&b, p); err != nil {
		return fmt.Errorf("report as HTML: %w", err)
	}
	if _, err := w.Write(b.Bytes()); err != nil {
		return fmt.Errorf("report as HTML: %w", err)
	}
	return nil
}

func figures(r Result) []figure {
	var out []figure
	if len(r.Traffic) > 0 {
		var fastest Flow      // flows run one after the other, so their rates are no sum
		var lost, sent uint64 // packets: TCP sends again what it loses
		counted := false
		var worst Flow // whose latency is
		for i, f := range r.Traffic {
			if i == 0 || f.faster(fastest) {
				fastest = f
			}
			if f.Unit != Bytes {
				lost, sent, counted = lost+f.Lost, sent+f.Sent, true
			}
			if f.Latency != nil && (worst.Latency == nil || f.Latency.P99 > worst.Latency.P99) {
				worst = f
			}
		}
		out = append(out, figure{fastest.rate(), "throughput", fastest.way() + ", " + fastest.Proto})
		if counted {
			out = append(out, figure{count(lost), "packets lost", "of " + count(sent) + " of UDP"})
		}
		if worst.Latency != nil {
			what := "one way"
			if worst.Proto == "tcp" {
				what = "round trip"
			}
			out = append(out, figure{micros(worst.Latency.P50), "median latency",
				fmt.Sprintf("%s, %s, %s, p99 %s", worst.way(), worst.Proto, what, micros(worst.Latency.P99))})
		}
	}
	if e := r.exchange(); e != nil {
		out = append(out, figure{millis(e.Ms), "key exchange", size(e.Bytes)})
	}
	var lost uint64
	triggers := map[string]int{}
	for _, k := range r.Rekeys {
		lost += k.Lost
		triggers[plain(k.Trigger)]++
	}
	note := "none happened"
	if len(r.Rekeys) > 0 {
		note = count(lost) + " packets of the old SAs did not arrive"
	}
	return append(out, figure{fmt.Sprint(len(r.Rekeys)), "rekeys", note})
}

// dropsText lists the reasons that occurred.
func dropsText(d Drops) string {
	var out []string
	for reason, n := range d.Reasons {
		if n > 0 {
			out = append(out, strings.ReplaceAll(reason, "_", " ")+" "+count(n))
		}
	}
	if len(out) == 0 {
		return "none"
	}
	sort.Strings(out)
	return strings.Join(out, ", ")
}
