package run

import (
	"os"
	"strings"
	"testing"
	"time"

	"pqlab/lab"
	"pqlab/report"
)

// dead is a lab of which one link lets nothing through.
const dead = `
name: dead
nodes: [{name: a, kind: host}, {name: b, kind: host}, {name: c, kind: host}]
links:
  - {name: ab, kind: ethernet, a: a, b: b, loss: 100%}
  - {name: bc, kind: ethernet, a: b, b: c}
traffic:
  - {name: bad, from: a, to: b, proto: tcp}
  - {name: lost, from: a, to: b, proto: udp, rate: 1Mbit/s}
  - {name: good, from: b, to: c, proto: tcp}
`

// What a link does not carry fails the checks of what has to pass it, by name; the rest of the run counts.
func TestDoNotCarried(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		tunnel string
		failed map[string]string // what the detail of a failed check has, by the check's name
	}{
		"a flow": {"", map[string]string{"bad arrives": "flow bad", "lost arrives": "nothing"}},
		"a key exchange": {"tunnels: [{name: vpn, a: a, b: b, suite: dilithium2+kyber512, deadline: 5s}]\n", map[string]string{
			"tunnel vpn is keyed": "key exchange", "bad arrives": "tunnel vpn", "lost arrives": "tunnel vpn", "link ab carries only ESP": "",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			p := plan(t, dead+tt.tunnel)
			result, err := Do(t.Context(), p, Options{Lab: lab.Options{Log: os.Stderr, Shaper: "wire"}, Duration: 200 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			if result.Verdict() != report.Fail || len(result.Tunnels) != len(p.Tunnels) {
				t.Errorf("%+v", result)
			}
			arrived := false
			for _, c := range result.Checks {
				want, fails := tt.failed[c.Name]
				arrived = arrived || c.Name == "good arrives"
				if c.OK == fails || !strings.Contains(c.Detail, want) {
					t.Errorf("%s: %v, %s", c.Name, c.OK, c.Detail)
				}
				if fails && want != "tunnel vpn" && want != "" && !strings.Contains(c.Detail, "link ab (loss 100%)") {
					t.Errorf("%s names no link: %s", c.Name, c.Detail)
				}
				delete(tt.failed, c.Name)
			}
			if !arrived || len(tt.failed) > 0 {
				t.Errorf("no such checks: %v; %+v", tt.failed, result.Checks)
			}
		})
	}
}
