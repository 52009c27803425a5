package topology_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"pqlab/topology"
)

type label struct {
	text                     string
	left, right, top, bottom float64
}

// labels reads the texts of a drawing and about where they are.
func labels(t *testing.T, svg []byte) (all []label, width, height float64) {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(svg))
	var l *label
	anchor := ""
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return all, width, height
		}
		if err != nil {
			t.Fatalf("not well-formed: %v", err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			attr := map[string]string{}
			for _, a := range token.Attr {
				attr[a.Name.Local] = a.Value
			}
			number := func(name string) float64 { f, _ := strconv.ParseFloat(attr[name], 64); return f }
			switch token.Name.Local {
			case "svg":
				width, height = number("width"), number("height")
			case "text":
				l, anchor = &label{left: number("x"), bottom: number("y") + 2, top: number("y") - 8}, attr["text-anchor"]
			}
		case xml.CharData:
			if l == nil {
				continue
			}
			trimmed := strings.TrimLeft(string(token), " ")
			l.left += 6.6 * float64(len(token)-len(trimmed))
			l.text = trimmed
			w := 6.6 * float64(len([]rune(trimmed)))
			switch anchor {
			case "middle":
				l.left -= w / 2
			case "end":
				l.left -= w
			}
			l.right = l.left + w
		case xml.EndElement:
			if token.Name.Local == "text" {
				all, l = append(all, *l), nil
			}
		}
	}
}

func TestSVG(t *testing.T) {
	t.Parallel()
	plans := []*topology.Plan{}
	for _, b := range topology.Builtins() {
		plans = append(plans, builtin(t, b.Name))
	}
	lanes, err := topology.New("lanes").Host("h1").DPU("d1", topology.On("h1")).Host("h2").DPU("d2", topology.On("h2")).
		Fibre("d1", "d2", topology.Gbit, topology.Delay(5e6), topology.Loss(0.01)).
		Tunnel("outer", "d1", "d2").Tunnel("end-to-end", "h1", "h2").Tunnel("half", "h1", "d2").Plan()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range append(plans, lanes, media(t)) {
		texts, width, height := labels(t, p.SVG())
		for i, a := range texts {
			if a.left < 0 || a.right > width || a.top < 0 || a.bottom > height {
				t.Errorf("%s: %q lies outside the drawing", p.Name, a.text)
			}
			for _, o := range texts[:i] {
				if a.left < o.right && o.left < a.right && a.top < o.bottom && o.top < a.bottom {
					t.Errorf("%s: %q and %q overlap", p.Name, a.text, o.text)
				}
			}
		}
		var want []string
		for _, n := range p.Nodes {
			want = append(want, n.Name)
		}
		for _, l := range p.Links {
			want = append(want, l.Name)
			for _, end := range []topology.End{l.A, l.B} {
				for _, a := range end.Addresses {
					want = append(want, a.String(), a.Masked().String())
				}
			}
			if l.Rate > 0 {
				want = append(want, l.Rate.String())
			}
		}
		for _, tun := range p.Tunnels {
			want = append(want, tun.Name+"  "+tun.Suite)
		}
		all := fmt.Sprint(texts)
		for _, w := range want {
			if !strings.Contains(all, w) {
				t.Errorf("%s: %q is not in the drawing", p.Name, w)
			}
		}
	}
	planned(200, func(i int, _ *topology.Topology, p *topology.Plan) {
		svg := p.SVG()
		texts, _, _ := labels(t, svg)
		if len(texts) < len(p.Nodes) || bytes.Contains(svg, []byte("NaN")) {
			t.Errorf("topology %d: %d texts, %d nodes", i, len(texts), len(p.Nodes))
		}
		if !bytes.Equal(svg, p.SVG()) {
			t.Errorf("topology %d is drawn differently each time", i)
		}
	})
	if p, err := topology.Chain(1).Plan(); err != nil || len(p.SVG()) == 0 {
		t.Error(err)
	}
}

// media is a lab of links that are not all of one rate.
func media(t *testing.T) *topology.Plan {
	t.Helper()
	p, err := topology.New("media").Verify(topology.Tolerance{}).Client("c").AP("ap").Host("h").DPU("d", topology.On("h")).Host("o").
		WiFi("c", "ap", topology.Station{Profile: "phone-ac-1x1-80", Distance: 12.5, Walls: 1}, topology.Delay(time.Millisecond)).
		Ethernet("ap", "d", 100*topology.Gbit).PCIe("h", "d", topology.Slot(3, 8)).
		Fibre("d", "o", topology.RateTrace(step(time.Second, topology.Mbit), step(time.Second, 3*topology.Mbit)),
			topology.Queue{Kind: topology.CoDel, Time: 20 * ms, Target: 2 * ms}, topology.LossTrace(9, 1), topology.Duplication(0.125),
			topology.Outages(topology.Outage{Length: time.Second}, topology.Outage{Start: time.Hour, Length: ms})).
		Plan()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// What a link shares, or does by the clock, is told in both forms.
func TestMediaAreShown(t *testing.T) {
	t.Parallel()
	p := media(t)
	texts, _, _ := labels(t, p.SVG())
	for what, shown := range map[string]string{"text": p.Text(), "drawing": fmt.Sprint(texts)} {
		for _, w := range []string{"phone-ac-1x1-80", "at 12.5m behind 1 wall", "63015Mbit/s", "1Mbit/s to 3Mbit/s", "codel", "20ms", "10% by trace"} {
			if !strings.Contains(shown, w) {
				t.Errorf("%q is not in the %s:\n%s", w, what, shown)
			}
		}
	}
	for _, w := range []string{"airtime", "2 outages", "12.5% duplicated", p.Notes[0], "99.99%"} {
		if !strings.Contains(p.Text(), w) {
			t.Errorf("%q is not in the text:\n%s", w, p.Text())
		}
	}
}

func TestText(t *testing.T) {
	t.Parallel()
	for _, b := range topology.Builtins() {
		p := builtin(t, b.Name)
		want := []string{p.Name, p.Description}
		for _, n := range p.Nodes {
			for _, itf := range n.Interfaces {
				want = append(want, n.Name, string(n.Kind), itf.Name)
				for _, a := range itf.Addresses {
					want = append(want, a.String())
				}
			}
		}
		for _, l := range p.Links {
			want = append(want, l.Name, string(l.Kind), strconv.Itoa(l.MTU))
		}
		for _, tun := range p.Tunnels {
			want = append(want, tun.Name, tun.Suite, tun.OuterA.String(), tun.OuterB.String())
		}
		for _, f := range p.Traffic {
			want = append(want, f.Name, f.Proto, strings.Join(f.Tunnels, ", "))
		}
		for _, w := range want {
			if !strings.Contains(p.Text(), w) {
				t.Errorf("%s: %q is not in the text", b.Name, w)
			}
		}
	}
}
