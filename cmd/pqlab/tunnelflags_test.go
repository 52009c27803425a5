package main

import (
	"testing"
	"time"

	"github.com/spf13/cobra"

	"pqlab/topology"
)

// Limits are written as in a topology, and reach every tunnel; what no flag says stays.
func TestTunnelFlags(t *testing.T) {
	t.Parallel()
	file := write(t, `
nodes: [{name: a, kind: host}, {name: b, kind: host}]
links: [{kind: ethernet, a: a, b: b}]
tunnels: [{name: t, a: a, b: b, mutual: true, rekey: {time: 1m, packets: 1000}}]
`)
	for _, tt := range []struct {
		args   []string
		want   topology.Limits
		mutual bool
		seed   uint64
	}{
		{nil, topology.Limits{Time: time.Minute, Blocks: 1 << 30, Packets: 1000}, true, 1},
		{[]string{"--rekey-blocks", "2^20", "--rekey-bytes=64GiB"}, topology.Limits{Time: time.Minute, Blocks: 1 << 20, Bytes: 64 << 30, Packets: 1000}, true, 1},
		{[]string{"--rekey-blocks=2000", "--rekey-bytes", "1000000", "--rekey-packets", "2^10", "--rekey-time", "1h30m"},
			topology.Limits{Time: 90 * time.Minute, Blocks: 2000, Bytes: 1000000, Packets: 1024}, true, 1},
		{[]string{"--mutual=false", "--seed", "18446744073709551615"}, topology.Limits{Time: time.Minute, Blocks: 1 << 30, Packets: 1000}, false, 1<<64 - 1},
	} {
		c := &cobra.Command{}
		f := addTunnelFlags(c)
		if err := c.ParseFlags(tt.args); err != nil {
			t.Errorf("%q: %v", tt.args, err)
			continue
		}
		p, err := f.plan(file)
		if err != nil {
			t.Errorf("%q: %v", tt.args, err)
			continue
		}
		if got := p.Tunnels[0]; got.Rekey != tt.want || got.Mutual != tt.mutual || p.Seed != tt.seed {
			t.Errorf("%q: %+v, mutual %v, seed %d", tt.args, got.Rekey, got.Mutual, p.Seed)
		}
	}
}
