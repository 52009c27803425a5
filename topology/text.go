package topology

import (
	"fmt"
	"net/netip"
	"strings"
	"text/tabwriter"
	"time"
)

// Text describes the plan for a terminal.
func (p *Plan) Text() string {
	var b strings.Builder
	fmt.Fprint(&b, p.Name)
	if p.Description != "" {
		fmt.Fprintf(&b, ": %s", p.Description)
	}
	fmt.Fprintf(&b, "\nseed %d\n", p.Seed)
	if p.Verify {
		t := p.Tolerance
		fmt.Fprintf(&b, "links are measured before use: rate within %s, delay %v, jitter %v, loss in its %s interval\n", percent(t.Rate), t.Delay, t.Jitter, percent(t.Confidence))
	}
	table := func(head string, rows func(row func(cells ...any))) {
		w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "\n"+head)
		rows(func(cells ...any) {
			for i, c := range cells {
				if i > 0 {
					fmt.Fprint(w, "\t")
				}
				fmt.Fprint(w, c)
			}
			fmt.Fprintln(w)
		})
		w.Flush()
	}
	table("NODE\tKIND\tINTERFACE\tADDRESSES", func(row func(...any)) {
		for _, n := range p.Nodes {
			name, kind := n.Name, string(n.Kind)
			if n.Profile != "" {
				kind += " (" + n.Profile + ")"
			}
			for _, i := range n.Interfaces {
				row(name, kind, i.Name, prefixes(i.Addresses))
				name, kind = "", ""
			}
			if len(n.Interfaces) == 0 {
				row(name, kind, "", "")
			}
		}
	})
	if len(p.Links) > 0 {
		table("LINK\tKIND\tA\tB\tRATE\tMTU\tDELAY\tLOSS", func(row func(...any)) {
			for _, l := range p.Links {
				cells := []any{l.Name, l.Kind, l.A.Node + " " + l.A.Interface, l.B.Node + " " + l.B.Interface, speedText(l), l.MTU, delayText(l.Shape), lossText(l.Shape)}
				if other := otherText(l); other != "" {
					cells = append(cells, other)
				}
				row(cells...)
			}
		})
	}
	if len(p.Tunnels) > 0 {
		table("TUNNEL\tEND\tOUTER\tPROTECTS\tSUITE", func(row func(...any)) {
			for _, t := range p.Tunnels {
				row(t.Name, t.A.Node, t.OuterA, prefixes(t.A.Subnets), t.keyedBy())
				row("", t.B.Node, t.OuterB, prefixes(t.B.Subnets), "over "+strings.Join(t.Links, " "))
			}
		})
	}
	if len(p.Traffic) > 0 {
		table("TRAFFIC\tPROTO\tFROM\tTO\tRATE\tTHROUGH", func(row func(...any)) {
			for _, f := range p.Traffic {
				row(f.Name, f.Proto, f.From, way(f), rateText(f.Rate), through(f))
			}
		})
	}
	if len(p.Notes) > 0 {
		fmt.Fprintf(&b, "\n%s\n", strings.Join(p.Notes, "\n"))
	}
	return b.String()
}

func prefixes(ps []netip.Prefix) string {
	texts := make([]string, len(ps))
	for i, p := range ps {
		texts[i] = p.String()
	}
	return strings.Join(texts, " ")
}

func rateText(r Rate) string {
	if r == 0 {
		return "-"
	}
	return r.String()
}

// speedText is the rate of a link, or where it comes from.
func speedText(l PlannedLink) string {
	switch {
	case l.WiFi != nil:
		return "airtime"
	case len(l.RateTrace) > 0:
		least := l.RateTrace[0].Rate
		for _, step := range l.RateTrace {
			least = min(least, step.Rate)
		}
		return fmt.Sprintf("%v to %v", least, peak(l.RateTrace))
	}
	return rateText(l.Rate)
}

func delayText(l Shape) string {
	s := "-"
	if l.Delay > 0 {
		s = l.Delay.Round(time.Microsecond / 10).String()
	}
	if l.Jitter > 0 {
		s += " ±" + l.Jitter.String()
		if d := l.DelayDistribution(); d != normal {
			s += " " + d
		}
		if l.Unordered {
			s += " unordered"
		}
	}
	return s
}

// lossText is the share of packets lost; "in bursts" if one loss makes the next more likely.
func lossText(s Shape) string {
	if lost, all := lostOf(s.LossTrace); all > 0 {
		return fmt.Sprintf("%.4g%% by trace", 100*float64(lost)/float64(all))
	}
	g := s.Chain()
	if g == (GilbertElliott{}) {
		return "-"
	}
	share := (g.P*g.Bad + g.R*g.Good) / (g.P + g.R)
	text := fmt.Sprintf("%.4g%%", 100*share)
	if s.LossCorrelation > 0 || s.GilbertElliott != (GilbertElliott{}) {
		text += " in bursts"
	}
	return text
}

// otherText says what else befalls packets.
func otherText(l PlannedLink) string {
	s := l.Shape
	var parts []string
	if l.WiFi != nil {
		parts = append(parts, l.WiFi.String())
	}
	if s.Queue != (Queue{}) {
		parts = append(parts, s.Queue.String())
	}
	for _, p := range []struct {
		share float64
		name  string
	}{{s.Duplication, "duplicated"}, {s.Reordering, "reordered"}, {s.Corruption, "corrupted"}} {
		if p.share > 0 {
			parts = append(parts, fmt.Sprintf("%.4g%% %s", 100*p.share, p.name))
		}
	}
	if n := len(s.Outages); n > 1 {
		parts = append(parts, fmt.Sprintf("%d outages", n))
	} else if n == 1 {
		parts = append(parts, "out "+s.Outages[0].String())
	}
	return strings.Join(parts, ", ")
}

func way(f PlannedFlow) string {
	if len(f.Via) == 0 {
		return f.To
	}
	return f.To + " via " + strings.Join(f.Via, ", ")
}

func through(f PlannedFlow) string {
	if len(f.Tunnels) == 0 {
		return "plaintext"
	}
	return strings.Join(f.Tunnels, ", ")
}
