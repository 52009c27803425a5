package report

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/net/html"
)

// TestSamples writes every sample, where a person can look at it: PQLAB_REPORT_SAMPLES=dir go test -run TestSamples ./report
func TestSamples(t *testing.T) {
	t.Parallel()
	dir := samplesDir()
	if dir == "" {
		dir = t.TempDir()
	}
	for name, r := range extreme() {
		if err := r.WriteDir(filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// elements that the page may have. There is no script, frame, form or link among them.
var elements = func() map[string]bool {
	m := map[string]bool{}
	for _, e := range strings.Fields(`html head meta title style body main header section footer div span p h1 h2 ul li i b br table thead tbody
		tr th td dl dt dd pre code img details summary svg g path line rect text tspan`) {
		m[e] = true
	}
	return m
}()

var void = map[string]bool{"meta": true, "br": true, "img": true}

// checkPage parses a page token by token and says what is wrong with it: elements it must not have, tags that do not match,
// anything that would be fetched or run.
func checkPage(text string) (words string, err error) {
	var stack []string
	var seen strings.Builder
	z := html.NewTokenizer(strings.NewReader(text))
	for {
		tt := z.Next()
		tok := z.Token()
		switch tt {
		case html.ErrorToken:
			if z.Err() != io.EOF {
				return "", z.Err()
			}
			if len(stack) > 0 {
				return "", fmt.Errorf("not closed: %v", stack)
			}
			return seen.String(), nil
		case html.StartTagToken, html.SelfClosingTagToken:
			if !elements[tok.Data] {
				return "", fmt.Errorf("element <%s>", tok.Data)
			}
			for _, a := range tok.Attr {
				if strings.HasPrefix(a.Key, "on") || a.Key == "href" || a.Key == "src" && !strings.HasPrefix(a.Val, "data:image/svg+xml;base64,") {
					return "", fmt.Errorf("attribute %s=%q", a.Key, a.Val)
				}
				if strings.Contains(a.Val, "NaN") || strings.Contains(a.Val, "Inf") {
					return "", fmt.Errorf("attribute %s=%q is no number", a.Key, a.Val)
				}
			}
			if tt == html.StartTagToken && !void[tok.Data] {
				stack = append(stack, tok.Data)
			}
		case html.EndTagToken:
			if len(stack) == 0 || stack[len(stack)-1] != tok.Data {
				return "", fmt.Errorf("</%s> within %v", tok.Data, stack)
			}
			stack = stack[:len(stack)-1]
		case html.TextToken:
			if n := len(stack); n > 0 && stack[n-1] == "style" {
				if strings.Contains(tok.Data, "url(") || strings.Contains(tok.Data, "@import") {
					return "", fmt.Errorf("the style fetches something")
				}
				continue
			}
			seen.WriteString(tok.Data + " ")
		}
	}
}

func TestPage(t *testing.T) {
	t.Parallel()
	for name, r := range extreme() {
		text := written(t, r)["html"]
		words, err := checkPage(text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if strings.Contains(words, "ZgotmplZ") || strings.Contains(text, "ZgotmplZ") {
			t.Errorf("%s: the template refused a value", name)
		}
		if len(text) > 200_000 {
			t.Errorf("%s: %d bytes", name, len(text))
		}
		for _, c := range r.Checks {
			if !strings.Contains(words, c.Name) {
				t.Errorf("%s: check %q is not there", name, c.Name)
			}
		}
		for _, k := range r.Rekeys {
			if k.Lost > 0 && !strings.Contains(text, `lossy"`) {
				t.Errorf("%s: a rekey with loss is not marked", name)
			}
		}
		if n := strings.Count(text, `<g class="rekey`); len(r.Traffic) > 0 && n != len(r.Rekeys) {
			t.Errorf("%s: %d rekeys in the plot, want %d", name, n, len(r.Rekeys))
		}
	}
}

// What was measured of links stands beside what was wanted, and how late they were; both are lists that fold.
func TestPageLinks(t *testing.T) {
	t.Parallel()
	words, err := checkPage(written(t, sample())["html"])
	if err != nil {
		t.Fatal(err)
	}
	words = strings.Join(strings.Fields(words), " ")
	for _, row := range []string{
		"d1-d2, d1 → d2 rate 20Mbit/s, delay 10ms, jitter 2ms, loss 1%, by wire 20.0 Mbit/s 20.0 Mbit/s 10.1 ms 10.0 ms −1.41 ms −1.35 ms +1.29 ms +1.35 ms 14.9 ms " +
			"1.04% of 5000 0.650% to 1.57% 1.00% 0.180% of 5000 0.050% to 0.450% 0.200%",
		"d1-d2, d2 → d1 delay 10ms, by wire – 10.1 ms 10.0 ms −10.0 µs 0 µs +10.0 µs 0 µs 10.4 ms 0% of 300 0% to 3.06% 0% –",
		"spare, h1 → h2 rate 40Gbit/s, by tbf not verified: rate 40Gbit/s: one sender does not make so much – – – – – – –",
		"d1-d2, d1 → d2 812 345 62.0 µs 310 µs 4.20 ms 0",
		"d1-d2, d2 → d1 too late 4 812 50.0 µs 7.90 ms 21.0 ms 12",
		"tcp bbr",
	} {
		if !strings.Contains(words, row) {
			t.Errorf("no %q in %q", row, words)
		}
	}
	for name, folded := range map[string]bool{"usual": false, "many": true} {
		text := written(t, extreme()[name])["html"]
		if got := strings.Contains(text, "directions of links</summary>"); got != folded {
			t.Errorf("%s: folded %v", name, got)
		}
	}
	if text := written(t, Result{})["html"]; strings.Contains(text, "measured before use") || strings.Contains(text, "How late") {
		t.Error("a run without verified links has tables of them")
	}
}

// TestPlotKeepsBits: what is plotted integrates to what arrived, however it was grouped.
func TestPlotKeepsBits(t *testing.T) {
	t.Parallel()
	for name, r := range extreme() {
		if name == "no numbers" {
			continue
		}
		var all []series
		var sum float64
		for _, f := range r.Traffic {
			s := flowSeries(f)
			var bits float64
			for _, b := range f.Bins {
				bits += float64(b.Bits)
			}
			if got := integral(s); got < bits*0.999 || got > bits*1.001 {
				t.Errorf("%s: %s: %v bits are drawn of %v", name, s.name, got, bits)
			}
			sum += bits
			all = append(all, s)
		}
		if len(all) > 1 {
			if got := integral(together(all, "")); got < sum*0.999 || got > sum*1.001 {
				t.Errorf("%s: together %v bits are drawn of %v", name, got, sum)
			}
		}
	}
}

func integral(s series) (bits float64) {
	for i := range s.t {
		to := s.end
		if i+1 < len(s.t) {
			to = s.t[i+1]
		}
		bits += s.v[i] * (to - s.t[i]) / 1e3
	}
	return bits
}

// FuzzNames puts a hostile name wherever a user has a say.
func FuzzNames(f *testing.F) {
	for _, s := range []string{
		"h1", "<script>alert(1)</script>", `"><img src=x onerror=alert(1)>`, "</title><script>", "</style><b>", "]]>", "<!--", "{{.}}", "&lt;",
		"'\"`", "\x00\x1b[2J\xff", "</svg><script>", "javascript:alert(1)", "\u202e\u2028", strings.Repeat("W", 500),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r := sample()
		r.Topology, r.Kernel, r.Dataplane, r.Shaper, r.Version, r.Machine.Model, r.Picture = s, s, s, s, s, s, s
		r.Command, r.Warnings = []string{s, s}, []string{s}
		r.CPUSeconds[s] = 1
		r.Checks[0].Name, r.Checks[0].Detail, r.Checks[1].Detail = s, s, s
		fl := &r.Traffic[0]
		fl.Name, fl.From, fl.To, fl.Proto, fl.Tunnels = s, s, s, s, []string{s, s}
		r.Rekeys[0].Tunnel, r.Rekeys[0].Trigger = s, s
		tu := &r.Tunnels[0]
		tu.Name, tu.A, tu.B, tu.Suite, tu.Combiner, tu.Identity, tu.Encapsulation, tu.Dataplane = s, s, s, s, s, s, s, s
		tu.Keying = s
		r.Logs[0].Node, r.Logs[0].Program, r.Logs[0].Lines[0] = s, s, s
		tu.SAs[0].Node, tu.SAs[0].Direction, tu.Drops[0].Node = s, s, s
		tu.Drops[0].Reasons[s] = 2
		tu.Exchange.Steps[0].Name, tu.Exchange.Steps[0].Side, tu.Exchange.Suite = s, s, s
		r.Watches[0].Link = s
		out := written(t, r)
		if _, err := checkPage(out["html"]); err != nil {
			t.Errorf("%q: page: %v", s, err)
		}
		// The text holds no more lines than the same report of a harmless name.
		if a, b := strings.Count(out["text"], "\n"), strings.Count(written(t, sample())["text"], "\n"); a != b {
			t.Errorf("%q: %d lines of text, want %d", s, a, b)
		}
	})
}

// TestPlotEnds: a flow's last bin is as long as the flow was, a sliver of it is no plunge of the rate, and the sum of flows
// does not fall to nothing at its end.
func TestPlotEnds(t *testing.T) {
	t.Parallel()
	flow := func(duration float64) Flow {
		return Flow{Duration: duration, Bins: []Bin{{0, 1e6}, {100, 1e6}, {200, uint64(1e4 * (duration - 200))}}}
	}
	for _, d := range []float64{201, 224, 226, 250, 300} {
		s := flowSeries(flow(d))
		if s.end != d {
			t.Errorf("a flow of %v ms ends at %v", d, s.end)
		}
		for i, v := range s.v {
			if v < 0.99e7 || v > 1.01e7 {
				t.Errorf("a flow of %v ms at 10 Mbit/s has %v bit/s from %v ms on", d, v, s.t[i])
			}
		}
		if sum := together([]series{s, s}, ""); sum.t[len(sum.t)-1] >= sum.end || sum.v[len(sum.v)-1] < 1.9e7 {
			t.Errorf("two flows of %v ms together: %v at %v until %v", d, sum.v, sum.t, sum.end)
		}
	}
}
